"""Answers to the blank cells of reward.ipynb."""

# %% reward-1
mine = [2.0, 1.0, 1.0, 1.0]

# %% reward-1 wrong: the words behind the template are overlooked
mine = [2.0, 2.0, 1.0, 1.0]

# %% reward-1 wrong: an answer that names two numbers counts as right
mine = [2.0, 1.0, 1.0, 2.0]

# %% reward-2
# (w r - w r̄) / (w s)：权重约掉
ratio = 1

# %% reward-2 wrong: the deviation is forgotten
ratio = 10

# %% reward-3
chance = 1 / (1 + math.exp(-2))
surprise = -math.log(chance)

# %% reward-3 wrong: in bits
chance = 1 / (1 + math.exp(-2))
surprise = -math.log2(chance)

# %% reward-4
# n / (n + 10) = 0.9
fillers = 90

# %% reward-4 wrong: nine tenths of the ten words
fillers = 9

# %% reward-4 wrong: more than needed
fillers = 91


# %% reward-5
def choice_reward(completions, answer, **columns):
    """1.0 where the answer is the letter asked for, as B, (B) or B.; else 0.0."""
    found = [re.fullmatch(r"\(([A-D])\)|([A-D])[).]?", final_answer(c) or "") for c in completions]
    pairs = zip(found, answer, strict=True)
    return [float(f is not None and letter in f.groups()) for f, letter in pairs]


half = 0


# %% reward-5 wrong: the letter is looked for anywhere
def choice_reward(completions, answer, **columns):
    """1.0 where the answer is the letter asked for, as B, (B) or B.; else 0.0."""
    pairs = zip(completions, answer, strict=True)
    return [float(letter in (final_answer(c) or "")) for c, letter in pairs]


half = 0
