"""Answers to the blank cells of moe.ipynb."""

# %% moe-1
# 存的一个不多；58 层各多用 8 个专家，一个专家有三个 7168 × 2048 的矩阵
stored = 671.03
used = 36.63 + 58 * 8 * 3 * 7168 * 2048 / 1e9

# %% moe-1 wrong: one layer only
stored = 671.03
used = 36.63 + 8 * 3 * 7168 * 2048 / 1e9

# %% moe-1 wrong: all doubled
stored = 671.03
used = 2 * 36.63

# %% moe-1 wrong: more is stored
stored = 671.03 + 58 * 8 * 3 * 7168 * 2048 / 1e9
used = 36.63 + 58 * 8 * 3 * 7168 * 2048 / 1e9

# %% moe-2
# 节点 1 与 3 留下：0.48 + 0.71 与 0.52 + 0.58 是最高的两个和
experts = [5, 15, 13, 4]
weights = [0.71 / 2.29, 0.58 / 2.29, 0.52 / 2.29, 0.48 / 2.29]

# %% moe-2 wrong: not normalised
experts = [5, 15, 13, 4]
weights = [0.71, 0.58, 0.52, 0.48]

# %% moe-2 wrong: the node of the highest score
experts = [8, 5, 4, 7]
weights = [0.25, 0.25, 0.25, 0.25]

# %% moe-2 wrong: the bias is still there
experts = [5, 15, 14, 13]
weights = [0.33, 0.27, 0.15, 0.25]

# %% moe-3
# 两个 logits 之差是 3 的对数；sigmoid(0) 是 1/2，sigmoid(ln 3) 是 3/4
z = [0.0, math.log(3)]
by_sigmoid_of_z = [0.4, 0.6]

# %% moe-3 wrong: the weights of softmax
z = [0.0, math.log(3)]
by_sigmoid_of_z = [0.25, 0.75]

# %% moe-3 wrong: the ratio instead of its logarithm
z = [0.0, 3.0]
by_sigmoid_of_z = [0.4, 0.6]


# %% moe-4
# 一个节点没被碰到：k 个全落在其余的专家里；八个节点的期望相加
def expected_nodes(experts, nodes, k):
    others = experts - experts // nodes
    missed = math.comb(others, k) / math.comb(experts, k)
    return nodes * (1 - missed)


# %% moe-4 wrong: drawn with replacement
def expected_nodes(experts, nodes, k):
    return nodes * (1 - (1 - 1 / nodes) ** k)


# %% moe-7
# 选择看 s + b，权重只看 s
def route_one(affinities, biases, keep, k):
    scores = [a + b for a, b in zip(affinities, biases, strict=True)]
    worth = [sum(sorted(scores[i : i + 4])[-2:]) for i in range(0, 16, 4)]
    kept = sorted(range(4), key=worth.__getitem__)[-keep:]
    open_to = [e for e in range(16) if e // 4 in kept]
    chosen = sorted(open_to, key=scores.__getitem__, reverse=True)[:k]
    total = sum(affinities[e] for e in chosen)
    return chosen, [affinities[e] / total for e in chosen]


# %% moe-7 wrong: the weight of the biased score
def route_one(affinities, biases, keep, k):
    scores = [a + b for a, b in zip(affinities, biases, strict=True)]
    worth = [sum(sorted(scores[i : i + 4])[-2:]) for i in range(0, 16, 4)]
    kept = sorted(range(4), key=worth.__getitem__)[-keep:]
    open_to = [e for e in range(16) if e // 4 in kept]
    chosen = sorted(open_to, key=scores.__getitem__, reverse=True)[:k]
    total = sum(scores[e] for e in chosen)
    return chosen, [scores[e] / total for e in chosen]


# %% moe-7 wrong: a node counts as its best expert
def route_one(affinities, biases, keep, k):
    scores = [a + b for a, b in zip(affinities, biases, strict=True)]
    kept = sorted(range(4), key=lambda n: max(scores[4 * n : 4 * n + 4]))[-keep:]
    open_to = [e for e in range(16) if e // 4 in kept]
    chosen = sorted(open_to, key=scores.__getitem__, reverse=True)[:k]
    total = sum(affinities[e] for e in chosen)
    return chosen, [affinities[e] / total for e in chosen]


# %% moe-7 wrong: closed nodes filled with 0
def route_one(affinities, biases, keep, k):
    scores = [a + b for a, b in zip(affinities, biases, strict=True)]
    worth = [sum(sorted(scores[i : i + 4])[-2:]) for i in range(0, 16, 4)]
    kept = sorted(range(4), key=worth.__getitem__)[-keep:]
    scores = [x if e // 4 in kept else 0.0 for e, x in enumerate(scores)]
    chosen = sorted(range(16), key=scores.__getitem__, reverse=True)[:k]
    total = sum(affinities[e] for e in chosen)
    return chosen, [affinities[e] / total for e in chosen]


# %% moe-8
# 选择时断开梯度是对的；取值要回到没有偏置、没有断开的分数
def gate_to_mend(scores, bias, k):
    indices = (scores + bias).detach().topk(k, dim=1).indices
    weights = scores.gather(1, indices)
    return indices, weights / weights.sum(dim=1, keepdim=True)


# %% moe-8 wrong: the bias is out, the gradient is not back
def gate_to_mend(scores, bias, k):
    indices = (scores + bias).topk(k, dim=1).indices
    weights = scores.detach().gather(1, indices)
    return indices, weights / weights.sum(dim=1, keepdim=True)


# %% moe-8 wrong: attached, but with the bias
def gate_to_mend(scores, bias, k):
    biased = scores + bias
    indices = biased.topk(k, dim=1).indices
    weights = biased.gather(1, indices)
    return indices, weights / weights.sum(dim=1, keepdim=True)
