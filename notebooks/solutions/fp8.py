"""Answers to the blank cells of fp8.ipynb."""

# %% fp8-1
# 指数 10 − 7 = 3，尾数 1 + 5/8；上面的下一个尾数是 6，间隔 2³/8 = 1
value = 13
following = 14
rounded = 13

# %% fp8-1 wrong: the bias of the exponent forgotten
value = 1664
following = 1792
rounded = 13

# %% fp8-1 wrong: rounded up
value = 13
following = 14
rounded = 14

# %% fp8-2
# 最小正数 2⁻⁹ 的一半，乘缩放因子；标准正态落在正负之间的概率
threshold = 30_000 / 448 * 2**-10
share = math.erf(threshold / math.sqrt(2))

# %% fp8-2 wrong: the smallest number, not half of it
threshold = 30_000 / 448 * 2**-9
share = math.erf(threshold / math.sqrt(2))

# %% fp8-2 wrong: positive numbers only
threshold = 30_000 / 448 * 2**-10
share = math.erf(threshold / math.sqrt(2)) / 2

# %% fp8-3
tile_fp32 = 4 / 128
tile_ue8m0 = 1 / 128
block_fp32 = 4 / 128**2

# %% fp8-3 wrong: one byte for a 32-bit scale
tile_fp32 = 1 / 128
tile_ue8m0 = 1 / 128
block_fp32 = 1 / 128**2

# %% fp8-4
across = (512, 56)
down = (4, 7168)
for_wgrad = "down"

# %% fp8-4 wrong: the direction of the forward product
across = (512, 56)
down = (4, 7168)
for_wgrad = "across"

# %% fp8-5
# 相对误差与不为 0 的项数成正比：max(0, z) 的乘积四分之三是 0；正态的互相抵消
first_above = {
    "half-normal": 2048,
    "uniform": 2048,
    "rectified": 8192,
    "normal": 32768,
}

# %% fp8-5 wrong: zeros counted like the others
first_above = {
    "half-normal": 2048,
    "uniform": 2048,
    "rectified": 2048,
    "normal": 32768,
}


# %% fp8-7
def tiles_there_and_back(x):  # (T, K)，K 是 128 的倍数
    groups = x.view(len(x), -1, 128)
    scale = groups.abs().amax(dim=2, keepdim=True) / 448
    scale = scale.masked_fill(scale == 0, 1)
    return (cast(groups / scale).float() * scale).view_as(x)


# %% fp8-7 wrong: zeros still divide zeros
def tiles_there_and_back(x):
    groups = x.view(len(x), -1, 128)
    scale = groups.abs().amax(dim=2, keepdim=True) / 448
    return (cast(groups / scale).float() * scale).view_as(x)


# %% fp8-7 wrong: tokens still share a scale
def tiles_there_and_back(x):
    groups = x.view(len(x), -1, 128)
    scale = groups.abs().amax(dim=(0, 2), keepdim=True) / 448
    scale = scale.masked_fill(scale == 0, 1)
    return (cast(groups / scale).float() * scale).view_as(x)


# %% fp8-8
# x / s 不变，编码也不变
times_e4m3 = 1
times_e5m2 = 1
times_int8 = 1

# %% fp8-8 wrong: errors as for numbers without a scale
times_e4m3 = 1
times_e5m2 = 1
times_int8 = 1000

# %% fp8-9
# 0.75 截成 0.5，4096 + 32 × 0.5
lowest = 0.5
after = 4112

# %% fp8-9 wrong: the exact sum
lowest = 0.5
after = 4120


# %% fp8-10
def tensor_core_sum(a, b):
    def cut(z, top):
        unit = 2.0 ** (top - 13)
        return math.trunc(z / unit) * unit

    def factor_exponent(x):
        return max(exponent(x), -6)

    r = 0.0
    for start in range(0, len(a), 32):
        pairs = zip(a[start : start + 32], b[start : start + 32], strict=True)
        pairs = [(x, y) for x, y in pairs if x * y != 0]
        tops = [factor_exponent(x) + factor_exponent(y) for x, y in pairs]
        top = max([*tops, exponent(r)] if r else tops, default=0)
        r = cut(r, top) + sum(cut(x * y, top) for x, y in pairs)
        if r:
            r = cut(r, exponent(r))
    return r


# %% fp8-10 wrong: no truncation
def tensor_core_sum(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


# %% fp8-10 wrong: the sum is not cut again
def tensor_core_sum(a, b):
    r = 0.0
    for start in range(0, len(a), 32):
        now = slice(start, start + 32)
        pairs = [(x, y) for x, y in zip(a[now], b[now], strict=True) if x * y]
        tops = [max(exponent(x), -6) + max(exponent(y), -6) for x, y in pairs]
        top = max([*tops, exponent(r)] if r else tops, default=0)
        unit = 2.0 ** (top - 13)
        r = sum(math.trunc(z / unit) * unit for z in [r, *(x * y for x, y in pairs)])
    return r
