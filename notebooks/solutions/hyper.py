"""Answers to the blank cells of hyper.ipynb."""

# %% hyper-1
# 除以行和、列和，都不改变 (左上 × 右下) / (右上 × 左下)；双随机的 2×2 矩阵里它是 (a / (1 − a))²
first_entry = 1 / (1 + 2.718282**2)
with_eps = 0.5

# %% hyper-1 wrong: the square forgotten
first_entry = 1 / (1 + 2.718282**4)
with_eps = 0.5

# %% hyper-1 wrong: the columns exchanged
first_entry = 1 - 1 / (1 + 2.718282**2)
with_eps = 0.5

# %% hyper-1 wrong: eps taken for nothing
first_entry = 1 / (1 + 2.718282**2)
with_eps = 1 / (1 + 2.718282**2)

# %% hyper-2
guess = 1.15

# %% hyper-2 wrong: as if the columns were exact
guess = 1

# %% hyper-2 wrong: as if it grew with every layer
guess = 100

# %% hyper-3
rows_only = [[1, 0], [1, 0]]
vector = [1, 0]

# %% hyper-3 wrong: doubly stochastic
rows_only = [[0.5, 0.5], [0.5, 0.5]]
vector = [1, 0]

# %% hyper-3 wrong: along the small column
rows_only = [[1, 0], [1, 0]]
vector = [0, 1]

# %% hyper-6
more_traffic = ((5 * 4 + 1 + 3 * 4 + 1) * 7168 + 2 * (4**2 + 2 * 4)) / (3 * 7168)
kept_streams = 2 * 4 * 7168

# %% hyper-6 wrong: against one C
more_traffic = 34
kept_streams = 2 * 4 * 7168

# %% hyper-6 wrong: one byte a number
more_traffic = 11.34
kept_streams = 4 * 7168
