"""Answers to the blank cells of after.ipynb."""

# %% after-1
# 三十题里的一题
points = 100 / 30
problems = (86.1 - 83.6) / points

# %% after-1 wrong: a share instead of points
points = 1 / 30
problems = 2.5


# %% after-2
def lower_rows(model, tie):
    pairs = zip(base.values(V32), base.values(model), strict=True)
    return sum(old - new > tie + 1e-9 for old, new in pairs)


# %% after-2 wrong: the line is forgotten
def lower_rows(model, tie):
    return sum(old > new for old, new in zip(base.values(V32), base.values(model), strict=True))


# %% after-2 wrong: the line is fixed
def lower_rows(model, tie):
    pairs = zip(base.values(V32), base.values(model), strict=True)
    return sum(old - new > 0.3 + 1e-9 for old, new in pairs)


# %% after-3
# 等级分与百分数不能一起平均
gaps = [
    after - before
    for name, before, after in zip(names, exp.values(OLD), exp.values(NEW), strict=True)
    if name != "Codeforces-Div1"
]
mean_gap = sum(gaps) / len(gaps)

# %% after-3 wrong: divided by all rows
gaps = [
    after - before
    for name, before, after in zip(names, exp.values(OLD), exp.values(NEW), strict=True)
    if name != "Codeforces-Div1"
]
mean_gap = sum(gaps) / 10
