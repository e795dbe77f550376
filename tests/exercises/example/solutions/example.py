"""Answers to the blank cells of example.ipynb."""

# %% example-1
# 节点 1 与 3 留下：0.48 + 0.71 与 0.52 + 0.58 是最高的两个和
experts = [5, 15, 13, 4]
weights = [0.71 / 2.29, 0.58 / 2.29, 0.52 / 2.29, 0.48 / 2.29]

# %% example-1 wrong: no limit to nodes
experts = [8, 5, 0, 15]
weights = [0.25, 0.25, 0.25, 0.25]

# %% example-1 wrong: not normalised
experts = [5, 15, 13, 4]
weights = [0.71, 0.58, 0.52, 0.48]


# %% example-2
def normalise(scores, chosen):
    picked = scores.gather(1, chosen)
    return picked / picked.sum(dim=1, keepdim=True)


# %% example-2 wrong: normalised over all experts
def normalise(scores, chosen):
    return (scores / scores.sum(dim=1, keepdim=True)).gather(1, chosen)
