"""Answers to the blank cells of ledger.ipynb."""

# %% ledger-1
# 512 个 FP8 数、四个 FP32 缩放因子、64 个 BF16 的位置键；索引键只有一个缩放因子
latent = 512 + 512 // 128 * 4 + 64 * 2
key = 128 + 4
whole = 61 * (latent + key)

# %% ledger-1 wrong: scales forgotten
latent = 512 + 64 * 2
key = 128
whole = 61 * (latent + key)

# %% ledger-1 wrong: all in BF16
latent = 576 * 2
key = 132
whole = 61 * (latent + key)


# %% ledger-2
def bytes_per_token(ratios, entry, index_key):
    # m 个 token 合成一条，每个 token 分摊 1/m；只有压缩率是 4 的层带索引键
    return sum((entry + index_key * (m == 4)) / m for m in ratios if m)


# %% ledger-2 wrong: no index keys
def bytes_per_token(ratios, entry, index_key):
    return sum(entry / m for m in ratios if m)


# %% ledger-2 wrong: index keys in every layer
def bytes_per_token(ratios, entry, index_key):
    return sum((entry + index_key) / m for m in ratios if m)


# %% ledger-3
# 窗口：43 层各存 128 个 token、每个 584 字节；压缩的部分每个 token 3514 字节
window = 43 * 128 * 584
guess = window / (window + 10_000 * 3514)

# %% ledger-3 wrong: tokens instead of bytes
guess = 128 / 10_000
