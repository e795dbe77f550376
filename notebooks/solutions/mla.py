"""Answers to the blank cells of mla.ipynb."""

# %% mla-1
lite_bytes = (512 + 64) * 27 * 2
lite_times = 2 * 16 * 128 / (512 + 64)

# %% mla-1 wrong: one layer
lite_bytes = (512 + 64) * 2
lite_times = 2 * 16 * 128 / (512 + 64)

# %% mla-1 wrong: keys without values
lite_bytes = (512 + 64) * 27 * 2
lite_times = 16 * 128 / (512 + 64)

# %% mla-2
half_elements = (256 + 64) * 61
half_as_groups = (256 + 64) / (2 * 128)

# %% mla-2 wrong: the positional key halved as well
half_elements = (512 + 64) * 61 / 2
half_as_groups = 2.25 / 2

# %% mla-3
# 展开一个位置的乘加，除以吸收时每个新 token 多的乘加，向下取整
most = 128 * (128 + 128) * 512 // (128 * (1088 - 320))

# %% mla-3 wrong: the attention of the decompressed form forgotten
most = 128 * (128 + 128) * 512 // (128 * 1088)

# %% mla-4
fused_size = 1536 * 128 * 512
apart_size = 1536 * 128 * 128 + 512 * 128 * 128

# %% mla-4 wrong: one head
fused_size = 1536 * 512
apart_size = 1536 * 128 * 128 + 512 * 128 * 128

# %% mla-5
ends = [10, 23]
slower = 10
new_scale = (0.1 * 2.302585 + 1) ** 2 / 192**0.5

# %% mla-5 wrong: the factor once
ends = [10, 23]
slower = 10
new_scale = (0.1 * 2.302585 + 1) / 192**0.5

# %% mla-5 wrong: the ramp moved with the factor
ends = [3, 16]
slower = 10
new_scale = 0.1092

# %% mla-6
sensitive = "潜在向量"
growth_of_error = 4

# %% mla-6 wrong: the other part
sensitive = "位置键"
growth_of_error = 4

# %% mla-6 wrong: two bits taken for a factor of two
sensitive = "潜在向量"
growth_of_error = 2


# %% mla-9
def intensity(heads, new):
    """heads 个头、一步 new 个新 token：每读一个字节做几次运算（一个乘加算两次）。"""
    multiply_adds = new * heads * ((512 + 64) + 512)  # 与键点积，再对值求和
    return 2 * multiply_adds / (2 * (512 + 64))


lite_waits_for = "读"


# %% mla-9 wrong: the latent read once for every head
def intensity(heads, new):
    return 2 * new * heads * (576 + 512) / (2 * 576 * heads)


lite_waits_for = "读"


# %% mla-9 wrong: a multiply-add taken for one operation
def intensity(heads, new):
    return new * heads * (576 + 512) / (2 * 576)


lite_waits_for = "读"

# %% mla-10
mha_card = 2 * 32 * 128
mla_card = 512 + 64

# %% mla-10 wrong: the latent divided as well
mha_card = 2 * 32 * 128
mla_card = (512 + 64) / 4
