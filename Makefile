# Each command is written once, in make.py, which needs no make: python make.py book
PYTHON ?= python3

.DEFAULT_GOAL := help
COMMANDS := help book test gpu practice check-site lighthouse links lint format bench experiments \
            serve live lab pdf slides zip wheel install clean distclean
.PHONY: $(COMMANDS)
$(COMMANDS):  # a setting such as PORT=9000 goes to make.py in the environment
	@$(PYTHON) make.py $@
