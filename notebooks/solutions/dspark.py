"""Answers to the blank cells of dspark.ipynb."""

# %% dspark-1
# 逐项取小再相加：min(0.5, 0.7) + min(0.5, 0.3)
overlap = 0.5 + 0.3

# %% dspark-1 wrong: the whole distance
overlap = 1 - 0.4


# %% dspark-2
def admit(survival, speed):
    tau, best, count = 1.0, speed[1], 0
    for alive in survival:
        theta = (tau + alive) * speed[count + 2]
        if theta <= best:  # 不再变大就停，后面的一眼也不看
            break
        tau, best, count = tau + alive, theta, count + 1
    return count


# %% dspark-2 wrong: the best of all lengths
def admit(survival, speed):
    thetas = [(1 + sum(survival[:n])) * speed[n + 1] for n in range(len(survival) + 1)]
    return thetas.index(max(thetas))


# %% dspark-2 wrong: a threshold of one half
def admit(survival, speed):
    return sum(alive > 0.5 for alive in survival)


# %% dspark-3
# 六成的草稿是 A，验了，总被接受；另四成是 B，不验，模型照 0.7 写
guess = 0.6 + 0.4 * 0.7

# %% dspark-3 wrong: nothing changes
guess = 0.7
