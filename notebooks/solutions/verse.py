"""Answers to the blank cells of verse.ipynb."""

# %% verse-1
# 城、舍、君、出：平仄平仄。後一聯以平起，前一聯以仄收
second = "平仄平仄"
line = 3

# %% verse-1 wrong: 出, which ended in a stop, is taken as it sounds today
second = "平仄平平"
line = 3

# %% verse-1 wrong: the second line of a couplet, where 對 rules
second = "平仄平仄"
line = 2

# %% verse-1 wrong: the line after the one that breaks
second = "平仄平仄"
line = 4


# %% verse-2
def repeated(ends, first_rhymes):
    """第几句的韵脚在前面的韵脚里出现过，从 1 数，写成列表。"""
    seen, found = set(ends[:1]) if first_rhymes else set(), []
    for i in range(1, len(ends), 2):
        if ends[i] in seen:
            found.append(i + 1)
        seen.add(ends[i])
    return found


# %% verse-2 wrong: only the rhyme word just before is looked at
def repeated(ends, first_rhymes):
    """第几句的韵脚在前面的韵脚里出现过，从 1 数，写成列表。"""
    places = [0] * first_rhymes + list(range(1, len(ends), 2))
    return [place + 1 for i, place in enumerate(places) if i and ends[place] == ends[places[i - 1]]]


# %% verse-2 wrong: every line counts
def repeated(ends, first_rhymes):
    """第几句的韵脚在前面的韵脚里出现过，从 1 数，写成列表。"""
    return [i + 1 for i in range(len(ends)) if ends[i] in ends[:i]]


# %% verse-3
# 每个两字组在七首里都有
same = 1 / 7
other = 1

# %% verse-3 wrong: one of eight poems, whatever they hold
same = 1 / 8
other = 1 / 8

# %% verse-3 wrong: the batch is thought to share in it
same = 1 / 7
other = 1 / 8
