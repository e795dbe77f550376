"""Answers to the blank cells of balance.ipynb."""

# %% balance-1
# 平均是 6；专家 1、4 偏忙，2、3 偏闲，各挪一个 γ
vio = (10 - 6) / 6
new_bias = [-0.001, 0.002, 0.0, -0.001]

# %% balance-1 wrong: the ratio itself
vio = 10 / 6
new_bias = [-0.001, 0.002, 0.0, -0.001]

# %% balance-1 wrong: the busy go up
vio = 2 / 3
new_bias = [0.001, 0.0, -0.002, 0.001]

# %% balance-1 wrong: proportional steps
vio = 2 / 3
new_bias = [-0.004, 0.005, 0.001, -0.002]

# %% balance-2
# 最满的收到全部 T 个 token，平均是 8T/256；时间正比于 1 + MaxVio
worst = 256 / 8 - 1
ratio = 1.04 / 1.72

# %% balance-2 wrong: one choice for each token
worst = 255
ratio = 1.04 / 1.72

# %% balance-2 wrong: the time is MaxVio
worst = 31
ratio = 0.04 / 0.72

# %% balance-3
# 差距每步缩小 2γ
steps_small = 150
steps_large = 15

# %% balance-3 wrong: only one of the two moves
steps_small = 300
steps_large = 30


# %% balance-4
# 先合计，一个优化器步只动一次
def optimizer_step(bias, micro_batches, gamma):
    load = sum(expert_load(chosen, n_routed_experts=len(bias)) for chosen in micro_batches)
    update_bias(bias, load, gamma=gamma)


# %% balance-4 wrong: the step grows with the number of micro-batches
def optimizer_step(bias, micro_batches, gamma):
    load = sum(expert_load(chosen, n_routed_experts=len(bias)) for chosen in micro_batches)
    update_bias(bias, load, gamma=gamma * len(micro_batches))


# %% balance-5
# 快到平衡时步子自动变小，接近“均匀随机选”的下限
guess = 0.11

# %% balance-5 wrong: as if it swung
guess = 1.0


# %% balance-7
# f 数次数，不带梯度；P 是归一以后的亲和度的平均
def my_sequence_loss(scores, k):
    tokens, experts = scores.shape
    chosen = scores.topk(k, dim=1).indices.flatten()
    f = experts / (k * tokens) * chosen.bincount(minlength=experts)
    shares = scores / scores.sum(dim=1, keepdim=True)
    return (f * shares.mean(dim=0)).sum()


# %% balance-7 wrong: the K axis is kept
def my_sequence_loss(scores, k):
    tokens, experts = scores.shape
    chosen = scores.topk(k, dim=1).indices.flatten()
    f = experts / tokens * chosen.bincount(minlength=experts)
    shares = scores / scores.sum(dim=1, keepdim=True)
    return (f * shares.mean(dim=0)).sum()


# %% balance-7 wrong: not normalised
def my_sequence_loss(scores, k):
    tokens, experts = scores.shape
    chosen = scores.topk(k, dim=1).indices.flatten()
    f = experts / (k * tokens) * chosen.bincount(minlength=experts)
    return (f * scores.mean(dim=0)).sum()


# %% balance-7 wrong: detached
def my_sequence_loss(scores, k):
    tokens, experts = scores.shape
    chosen = scores.topk(k, dim=1).indices.flatten()
    f = experts / (k * tokens) * chosen.bincount(minlength=experts)
    shares = scores / scores.sum(dim=1, keepdim=True)
    return (f * shares.mean(dim=0).detach()).sum()


# %% balance-8
# 领先 0.5 与 0.3 的两个 token 留在专家 0；另两个要去专家 1，差价须过 0.2
low, high = 0.2, 0.3

# %% balance-8 wrong: three tokens move
low, high = 0.3, 0.5

# %% balance-8 wrong: too narrow
low, high = 0.24, 0.26
