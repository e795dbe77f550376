"""Answers to the blank cells of sparse.ipynb."""

# %% sparse-1
equal_at = 2048 * 139_264 / (139_264 - 8_192)
at_128k = (131_072 * 8_192 + 2048 * 139_264) / (131_072 * 139_264)

# %% sparse-1 wrong: the indexer forgotten
equal_at = 2048
at_128k = 2048 / 131_072

# %% sparse-1 wrong: the indexer alone
equal_at = 2048 * 139_264 / (139_264 - 8_192)
at_128k = 8_192 / 139_264

# %% sparse-2
# 第 t 个查询有 t 个候选，选中的期望是 8/t
guess = sum(8 / t for t in range(9, 97)) / 88

# %% sparse-2 wrong: the last query alone
guess = 8 / 96

# %% sparse-2 wrong: a half
guess = 0.5


# %% sparse-3
def index_scores(query, key, weight):
    products = torch.einsum("thd,sd->ths", query, key).relu()
    scores = torch.einsum("th,ths->ts", weight, products)
    later = torch.ones(len(key), len(key), dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf)


# %% sparse-3 wrong: no ReLU
def index_scores(query, key, weight):
    scores = torch.einsum("th,thd,sd->ts", weight, query, key)
    later = torch.ones(len(key), len(key), dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf)


# %% sparse-3 wrong: ReLU after the sum
def index_scores(query, key, weight):
    scores = torch.einsum("th,thd,sd->ts", weight, query, key).relu()
    later = torch.ones(len(key), len(key), dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf)


# %% sparse-3 wrong: later tokens are seen
def index_scores(query, key, weight):
    return torch.einsum("th,ths->ts", weight, torch.einsum("thd,sd->ths", query, key).relu())


# %% sparse-4
def turn_for_index(x, angle):
    position, content = x[:8], x[8:]
    a, b = position[:4], position[4:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos, content])


# %% sparse-4 wrong: halves that end up interleaved
def turn_for_index(x, angle):
    position, content = x[:8], x[8:]
    a, b = position[:4], position[4:]
    cos, sin = angle.cos(), angle.sin()
    pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=1)
    return torch.cat([pairs.flatten(), content])


# %% sparse-4 wrong: the last channels are turned
def turn_for_index(x, angle):
    content, position = x[:8], x[8:]
    a, b = position[:4], position[4:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([content, a * cos - b * sin, a * sin + b * cos])
