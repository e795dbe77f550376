"""One small DeepSeek from poems to verse: all of the book's mechanisms, in the order of their use.

    python -m dsnotes.whole --size laptop --seed 0 --out runs/laptop-0

sizes     how large the models are, and how long each stage trains
writing   asking a model for poems, what they earn, and the step of GRPO
judging   what the poems of a model are worth
run       the folder of a run: stages that are done, and one that goes on where it stopped
reading   training on poems, in this process or on several
stages    the stages that train, from the corpus to the two small models
experts   how evenly experts are loaded, and what they are for
serving   decoding with the latent cache and drafts; the checkpoint, read by another library
report    the table of a run
"""
