"""Answers to the blank cells of compressed.ipynb."""

# %% compressed-1
# 一条加一个索引键摊到 4 个 token；HCA 只有条目，摊到 128 个
csa = (584 + 68) / 4
hca = 584 / 128

# %% compressed-1 wrong: no key of the indexer
csa = 584 / 4
hca = 584 / 128

# %% compressed-1 wrong: by the tokens an entry reads
csa = (584 + 68) / 8
hca = 584 / 128

# %% compressed-1 wrong: a vector a token
csa = 584 + 68
hca = 584 / 128

# %% compressed-1 wrong: an indexer in HCA
csa = (584 + 68) / 4
hca = (584 + 68) / 128

# %% compressed-2
# (10 + 1) // 4 = 2；第 2 条自己的窗口是 8 到 11，前一个是 4 到 7
entries = 2
tokens = [4, 5, 6, 7, 8, 9, 10, 11]

# %% compressed-2 wrong: before it is complete
entries = 3
tokens = [4, 5, 6, 7, 8, 9, 10, 11]

# %% compressed-2 wrong: all of them
entries = 16
tokens = [4, 5, 6, 7, 8, 9, 10, 11]

# %% compressed-2 wrong: no overlap
entries = 2
tokens = [8, 9, 10, 11]

# %% compressed-2 wrong: the next window
entries = 2
tokens = [8, 9, 10, 11, 12, 13, 14, 15]

# %% compressed-3
# 六个头都为负：2 的 −6 次方
guess = 1 / 64

# %% compressed-3 wrong: one head
guess = 0.5

# %% compressed-3 wrong: none
guess = 0.0

# %% compressed-4
# 一块 128 个 token；一层退一窗，43 层退 43 窗
csa_entries = 128 // 4
hca_entries = 128 // 128
again = 128 * 43

# %% compressed-4 wrong: one window
csa_entries = 32
hca_entries = 1
again = 128

# %% compressed-4 wrong: by the tokens an entry reads
csa_entries = 16
hca_entries = 1
again = 128 * 43

# %% compressed-4 wrong: as many of both
csa_entries = 32
hca_entries = 32
again = 128 * 43

# %% compressed-4 wrong: a window short
csa_entries = 32
hca_entries = 1
again = 128 * 42
