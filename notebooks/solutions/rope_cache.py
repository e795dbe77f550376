"""Answers to the blank cells of rope_cache.ipynb."""


# %% rope_cache-1
def turn(x, t, theta):
    """x: (d,)，theta: (d/2,) 弧度；返回转过以后的 (d,)。"""
    a, b = x[0::2], x[1::2]  # 每一对的两维
    cos, sin = (t * theta).cos(), (t * theta).sin()
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    return turned.flatten()


# %% rope_cache-1 wrong: the other way round
def turn(x, t, theta):
    a, b = x[0::2], x[1::2]
    cos, sin = (t * theta).cos(), (t * theta).sin()
    return torch.stack([a * cos + b * sin, b * cos - a * sin], dim=-1).flatten()


# %% rope_cache-1 wrong: the two halves as pairs
def turn(x, t, theta):
    a, b = x.chunk(2)
    cos, sin = (t * theta).cos(), (t * theta).sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos])


# %% rope_cache-1 wrong: not a rotation
def turn(x, t, theta):
    return x * (t * theta).cos().repeat_interleave(2)


# %% rope_cache-1 wrong: one angle for all pairs
def turn(x, t, theta):
    a, b = x[0::2], x[1::2]
    cos, sin = (t * theta[0]).cos(), (t * theta[0]).sin()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten()
