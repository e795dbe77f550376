"""Answers to the blank cells of fp4.ipynb."""

# %% fp4-1
# 5 / 6 = 0.83，向上取到 1；5 在 4 与 6 正中，取 4；0.6 取 0.5，1.8 取 2
scale = 1.0
back = [4.0, 0.5, -2.0]

# %% fp4-1 wrong: the scale rounded down
scale = 0.5
back = [3.0, 0.5, -2.0]

# %% fp4-1 wrong: a tie away from zero
scale = 1.0
back = [6.0, 0.5, -2.0]


# %% fp4-2
def pack(codes):
    return [low + 16 * high for low, high in zip(codes[::2], codes[1::2], strict=True)]


# %% fp4-2 wrong: the halves swapped
def pack(codes):
    return [16 * first + second for first, second in zip(codes[::2], codes[1::2], strict=True)]


# %% fp4-2 wrong: a byte for each
def pack(codes):
    return list(codes)


# %% fp4-3
def power_of_two(amax):
    # 向上取：除以它以后不会大于 6
    exponent = torch.log2(torch.tensor(amax / 6)).ceil()
    return 2.0 ** exponent.item()


# %% fp4-3 wrong: rounded down
def power_of_two(amax):
    exponent = torch.log2(torch.tensor(amax / 6)).floor()
    return 2.0 ** exponent.item()


# %% fp4-3 wrong: always one more
def power_of_two(amax):
    exponent = torch.log2(torch.tensor(amax / 6)).floor() + 1
    return 2.0 ** exponent.item()
