"""Answers to the blank cells of muon.ipynb."""

# %% muon-1
# 2048 个奇异值都是 1，平方和 2048，摊到 7168 × 2048 个数上
bare = (2048 / (7168 * 2048)) ** 0.5
factor = 0.18 * 7168**0.5

# %% muon-1 wrong: the smaller side
bare = 1 / 2048**0.5
factor = 0.18 * 7168**0.5

# %% muon-1 wrong: not a root mean square
bare = 2048 / 7168
factor = 0.18 * 7168**0.5

# %% muon-1 wrong: the factor of others
bare = 1 / 7168**0.5
factor = 0.2 * 7168**0.5

# %% muon-1 wrong: the ratio of the sides
bare = 1 / 7168**0.5
factor = (7168 / 2048) ** 0.5

# %% muon-1 wrong: no gamma
bare = 1 / 7168**0.5
factor = 7168**0.5

# %% muon-2
# b + c = −7/8，3b + 5c = −15/8：从后一式减去前一式的三倍，2c = 6/8
c = 3 / 8
b = -7 / 8 - c

# %% muon-2 wrong: the slope alone
b = 0.0
c = -3 / 8

# %% muon-2 wrong: the sum alone
b = -7 / 8
c = 0.0

# %% muon-3
# 数小时一步大约乘 3.4445；到了十分之几，三次项开始往回拉
guess = 0.45

# %% muon-3 wrong: it stays
guess = 0.001

# %% muon-3 wrong: it has arrived
guess = 1.0

# %% muon-4
# 十步、每步 6n³ 次运算，除以每个 token 的 6n²
equal = 10 * 4096
share = equal / 75.5e6

# %% muon-4 wrong: one step
equal = 4096
share = 4096 / 75.5e6

# %% muon-4 wrong: two products
equal = 10 * 4096 * 2 / 3
share = equal / 75.5e6

# %% muon-4 wrong: in per cent
equal = 10 * 4096
share = 100 * equal / 75.5e6

# %% muon-4 wrong: the other way round
equal = 10 * 4096
share = 75.5e6 / equal
