"""Answers to the blank cells of offpolicy.ipynb."""

# %% offpolicy-1
# x = 0.4 / 0.2 = 2，ρ = 0.2 / 0.1 = 2
value_k3, weight_k3 = 2 - 1 - 0.6931, 1 - 2
value_unbiased, weight_unbiased = 2 * (1 - 0.6931), -2 * 0.6931

# %% offpolicy-1 wrong: the ratio detached
value_k3, weight_k3 = 2 - 1 - 0.6931, 1 - 2
value_unbiased, weight_unbiased = 2 * (1 - 0.6931), 2 * (1 - 2)

# %% offpolicy-1 wrong: x upside down
value_k3, weight_k3 = 0.5 - 1 + 0.6931, 1 - 0.5
value_unbiased, weight_unbiased = 2 * (0.6931 - 0.5), 2 * 0.6931

# %% offpolicy-2
# 平均的 log(采样时 / 现在)：甲、乙 1.61，丙 −0.69，丁 (2.30 − 1.61) / 2 = 0.35
keeps = [True, False, True, True]

# %% offpolicy-2 wrong: good ones dropped as well
keeps = [False, False, True, True]

# %% offpolicy-2 wrong: by the largest token
keeps = [True, False, True, False]

# %% offpolicy-2 wrong: by the size of the drift
keeps = [True, False, False, True]

# %% offpolicy-3
# 每个抽得到的 token，比率都等于剪剩的概率之和，略多于 0.7
guess = 0.72

# %% offpolicy-3 wrong: the same policy, so the ratio is 1
guess = 1.0

# %% offpolicy-3 wrong: squared
guess = 0.49

# %% offpolicy-4
# 几何平均之比 √(0.9 × 0.5) : √(0.1 × 0.5) = 3 : 1
both = 3 / 4

# %% offpolicy-4 wrong: mean of the probabilities
both = 0.7

# %% offpolicy-4 wrong: not normalised
both = (0.9 * 0.5) ** 0.5


# %% offpolicy-5
def loss_of(pi, old, ref, rewards, mask, beta, delta):
    """V3.2's loss of one group; all but `rewards` are (G, T)."""
    a = rewards - rewards.mean()
    n = mask.sum(1)
    rho = (pi - old).exp()
    surrogate = torch.min(rho * a[:, None], rho.clamp(0.8, 1.2) * a[:, None])
    kl = rho * ((ref - pi).exp() - (ref - pi) - 1)
    drift = ((old - pi).detach() * mask).sum(1) / n
    keep = ~((a < 0) & (drift > delta))
    terms = surrogate * keep[:, None] - beta * kl
    return -((terms * mask).sum(1) / n).mean()


# %% offpolicy-5 wrong: the mask is still on the KL
def loss_of(pi, old, ref, rewards, mask, beta, delta):
    a = rewards - rewards.mean()
    n = mask.sum(1)
    rho = (pi - old).exp()
    surrogate = torch.min(rho * a[:, None], rho.clamp(0.8, 1.2) * a[:, None])
    kl = rho * ((ref - pi).exp() - (ref - pi) - 1)
    drift = ((old - pi).detach() * mask).sum(1) / n
    keep = ~((a < 0) & (drift > delta))
    terms = (surrogate - beta * kl) * keep[:, None]
    return -((terms * mask).sum(1) / n).mean()


# %% offpolicy-5 wrong: the ratio is still detached
def loss_of(pi, old, ref, rewards, mask, beta, delta):
    a = rewards - rewards.mean()
    n = mask.sum(1)
    rho = (pi - old).exp()
    surrogate = torch.min(rho * a[:, None], rho.clamp(0.8, 1.2) * a[:, None])
    kl = rho.detach() * ((ref - pi).exp() - (ref - pi) - 1)
    drift = ((old - pi).detach() * mask).sum(1) / n
    keep = ~((a < 0) & (drift > delta))
    terms = surrogate * keep[:, None] - beta * kl
    return -((terms * mask).sum(1) / n).mean()


# %% offpolicy-6
# 自称 0：错的 0.4 得满分；½：总是一半；1：对的 0.6 得满分
pay = [0.24 * 0.4, 0.24 * 0.5, 0.24 * 0.6]
claim = 1

# %% offpolicy-6 wrong: without the weight
pay = [0.4, 0.5, 0.6]
claim = 1

# %% offpolicy-6 wrong: the mean of what one believes
pay = [0.24 * 0.4, 0.24 * 0.5, 0.24 * 0.6]
claim = 0.5
