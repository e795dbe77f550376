"""Answers to the blank cells of pipelines.ipynb."""


# %% pipelines-1
def order(rank, num_ranks, num_micro_batches):
    ahead = min(num_ranks - rank, num_micro_batches)
    rest = num_micro_batches - ahead
    return "F" * ahead + "BF" * rest + "B" * ahead


# %% pipelines-1 wrong: GPipe
def order(rank, num_ranks, num_micro_batches):
    return "F" * num_micro_batches + "B" * num_micro_batches


# %% pipelines-1 wrong: one forward too few at the start
def order(rank, num_ranks, num_micro_batches):
    ahead = min(num_ranks - rank - 1, num_micro_batches)
    rest = num_micro_batches - ahead
    return "F" * ahead + "BF" * rest + "B" * ahead


# %% pipelines-1 wrong: forgets that there may be fewer micro-batches than ranks
def order(rank, num_ranks, num_micro_batches):
    ahead = num_ranks - rank
    return "F" * ahead + "BF" * (num_micro_batches - ahead) + "B" * ahead
