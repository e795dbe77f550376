"""Answers to the blank cells of eplb.ipynb."""

# %% eplb-1
# 每份 60、10、30 → 抄给 0：30、10、30 → 抄给 0：20、10、30 → 抄给 2
copies = [3, 1, 2]

# %% eplb-1 wrong: always the hottest expert
copies = [4, 1, 1]


# %% eplb-2
def pack(loads, num_packs):
    room = len(loads) // num_packs
    total, held = [0.0] * num_packs, [0] * num_packs
    chosen = [0] * len(loads)
    for item in sorted(range(len(loads)), key=lambda i: -loads[i]):
        lightest = min((p for p in range(num_packs) if held[p] < room), key=total.__getitem__)
        chosen[item] = lightest
        total[lightest] += loads[item]
        held[lightest] += 1
    return chosen


# %% eplb-2 wrong: a full pack is used again
def pack(loads, num_packs):
    total = [0.0] * num_packs
    chosen = [0] * len(loads)
    for item in sorted(range(len(loads)), key=lambda i: -loads[i]):
        chosen[item] = min(range(num_packs), key=total.__getitem__)
        total[chosen[item]] += loads[item]
    return chosen


# %% eplb-2 wrong: in the given order
def pack(loads, num_packs):
    room = len(loads) // num_packs
    return [item // room for item in range(len(loads))]


# %% eplb-3
def replicate(loads, slots):
    count = [1] * len(loads)
    for _ in range(slots - len(loads)):
        # 抄过的专家，每份已经轻了
        hottest = max(range(len(loads)), key=lambda i: loads[i] / count[i])
        count[hottest] += 1
    return count


# %% eplb-3 wrong: one more is subtracted
def replicate(loads, slots):
    count = [1] * len(loads)
    for _ in range(slots - len(loads)):
        hottest = max(range(len(loads)), key=lambda i: loads[i] - count[i])
        count[hottest] += 1
    return count
