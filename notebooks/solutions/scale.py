"""Answers to the blank cells of scale.ipynb."""

# %% scale-1
loss = (30 * 4.0 + 10 * 6.0) / 40  # 4.5
factors = [2 * 30 / 40, 2 * 10 / 40]  # DDP 除以二，先乘二

# %% scale-1 wrong: the mean of the means
loss = 5.0
factors = [1.0, 1.0]

# %% scale-1 wrong: the shares alone, which DDP halves
loss = 4.5
factors = [0.75, 0.25]

# %% scale-2
held = (4 + 4 + 2 + 2) * (0.64 + 1.07)
cut = 4 * (0.64 + 1.07) + (4 + 2 + 2) * (0.64 / 2 + 1.07 / 128)

# %% scale-2 wrong: the gradients are cut too
held = 12 * 1.71
cut = 12 * (0.64 / 2 + 1.07 / 128)

# %% scale-2 wrong: as many copies of the experts as of all else
held = 12 * 1.71
cut = (4 + 8 / 128) * 1.71


# %% scale-3
def zero_step(weight, gradients, momenta, *, lr=0.1, beta=0.9):
    total = sum(gradients)
    pieces = []
    ours = zip(weight.chunk(len(momenta)), total.chunk(len(momenta)), momenta, strict=True)
    for own, gradient, momentum in ours:  # 每张卡只做自己的一段
        momentum.mul_(beta).add_(gradient)
        pieces.append(own - lr * momentum)
    return torch.cat(pieces)  # 再收齐


# %% scale-3 wrong: each card looks at its own gradient alone
def zero_step(weight, gradients, momenta, *, lr=0.1, beta=0.9):
    pieces = []
    for r, (own, momentum) in enumerate(zip(weight.chunk(len(momenta)), momenta, strict=True)):
        momentum.mul_(beta).add_(gradients[r].chunk(len(momenta))[r])
        pieces.append(own - lr * momentum)
    return torch.cat(pieces)


# %% scale-3 wrong: the momentum is forgotten
def zero_step(weight, gradients, momenta, *, lr=0.1, beta=0.9):
    return weight - lr * sum(gradients)
