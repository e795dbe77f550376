"""Answers to the blank cells of mtp.ipynb."""

# %% mtp-1
fed = 3 + 2
target = 3 + 2 + 1
terms = 4096 - 2

# %% mtp-1 wrong: the target is what is fed
fed = 5
target = 5
terms = 4094

# %% mtp-1 wrong: the terms of the first depth
fed = 5
target = 6
terms = 4095

# %% mtp-2
slower = [1.85 / 1.8 - 1, 1.9 / 1.8 - 1]

# %% mtp-2 wrong: the ratio, not what it exceeds 1 by
slower = [1.85 / 1.8, 1.9 / 1.8]

# %% mtp-3
two = 1 + 0.85 + 0.85**2
more = 0.85**2

# %% mtp-3 wrong: the second draft counted whether or not the first was accepted
two = 1 + 0.85 + 0.85
more = 0.85

# %% mtp-4
accept_rate = 0.2 + 0.2 + 0.2
rest = [0.3 / 0.4, 0.1 / 0.4, 0.0]

# %% mtp-4 wrong: not normalised
accept_rate = 0.6
rest = [0.3, 0.1, 0.0]

# %% mtp-5
# 两端是 0；中间由闭式算出
guess = [0, 0.39, 0.63, 0.55, 0]

# %% mtp-5 wrong: the more it jumps, the more a look is worth
guess = [0, 0.1, 0.3, 0.5, 1.0]

# %% mtp-6
met = 256 * (1 - (1 - 8 / 256) ** 2)
extra = (met - 8) * 3 * 7168 * 2048 * 58 / 1e9

# %% mtp-6 wrong: the experts of the first token counted again
met = 256 * (1 - (1 - 8 / 256) ** 2)
extra = met * 3 * 7168 * 2048 * 58 / 1e9
