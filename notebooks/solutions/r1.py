"""Answers to the blank cells of r1.ipynb."""

# %% r1-1
per_question = 100 / 30
per_sample = 100 / 1920
apart = 0.6 / per_sample

# %% r1-1 wrong: an answer taken for a share of the whole
per_question = 100 / 30
per_sample = 100 / 64
apart = 0.6 / per_sample

# %% r1-2
both = 100 * math.sqrt((0.710 * 0.290 + 0.779 * 0.221) / (30 * 16))
times = (77.9 - 71.0) / both

# %% r1-2 wrong: the two are added
both = 100 * (math.sqrt(0.710 * 0.290 / 480) + math.sqrt(0.779 * 0.221 / 480))
times = (77.9 - 71.0) / both

# %% r1-2 wrong: one of the two
both = 100 * math.sqrt(0.710 * 0.290 / 480)
times = (77.9 - 71.0) / both

# %% r1-3
written = 10_400 * 32 * 16
epoch = 10_400 * 32 / 1.6

# %% r1-3 wrong: questions taken for answers
written = 10_400 * 32
epoch = 10_400 * 32 / 1.6

# %% r1-3 wrong: all epochs
written = 10_400 * 32 * 16
epoch = 10_400 * 32

# %% r1-4
columns_4 = (main.labels("metric"), main.values("DeepSeek-R1"), main.values("OpenAI-o1-1217"))
scores_4 = [(r1, o1) for metric, r1, o1 in zip(*columns_4, strict=True) if metric != "Rating"]
both_4 = [(r1, o1) for r1, o1 in scores_4 if not math.isnan(o1)]
o1_mean = sum(o1 for _, o1 in both_4) / len(both_4)
naive = sum(r1 for r1, _ in scores_4) / len(scores_4) - o1_mean
paired = sum(r1 for r1, _ in both_4) / len(both_4) - o1_mean

# %% r1-4 wrong: the rating averaged with percentages
naive = 171.67 - 255.63
paired = -2.45

# %% r1-4 wrong: blanks taken for zeros
naive = 78.805 - 750.9 / 20
paired = -2.45

# %% r1-4 wrong: the rows of one column only
naive = 78.805 - 75.09
paired = 78.805 - 75.09

# %% r1-5
guess = "大"
plain = (6094.2 + 7435.7 + 4928.8 + 2739.0 + 1419.8) / 5

# %% r1-5 wrong: the printed one
guess = "大"
plain = 5355.3

# %% r1-5 wrong: the other way round
guess = "小"
plain = (6094.2 + 7435.7 + 4928.8 + 2739.0 + 1419.8) / 5


# %% r1-6
def two_errors(q, answers):
    each = np.sqrt((q * (1 - q)).sum(axis=1) / 16) / 30  # 一份考卷，题目固定
    scores = answers.mean(axis=1)
    return 100 * each.mean(), 100 * scores.std()


# %% r1-6 wrong: shares and not points
def two_errors(q, answers):
    each = np.sqrt((q * (1 - q)).sum(axis=1) / 16) / 30
    return each.mean(), answers.mean(axis=1).std()


# %% r1-6 wrong: the bound, from the mean
def two_errors(q, answers):
    mean = q.mean()
    return 100 * np.sqrt(mean * (1 - mean) / 480), 100 * answers.mean(axis=1).std()


# %% r1-7
dev1 = stages.number("AIME 2024", "R1-Dev1")
cold = dev1 - stages.number("AIME 2024", "R1-Zero")

r1_column, o1_column = main.labels("DeepSeek-R1"), main.labels("OpenAI-o1-1217")
higher = sum(float(a) > float(b) for a, b in zip(r1_column, o1_column, strict=True) if b)

share = 100 * cost.number("Total", "h800_kgpu_hours") / v3_cost.number("合计", V3_HOURS)

# %% r1-7 wrong: only the versions are mended
dev1 = stages.number("AIME 2024", "R1-Dev1")
cold = dev1 - stages.number("AIME 2024", "R1-Zero")
r1_column, o1_column = main.labels("DeepSeek-R1"), main.labels("OpenAI-o1-1217")
higher = sum(float(a) > float(b or 0) for a, b in zip(r1_column, o1_column, strict=True))
share = 100 * cost.number("Total", "h800_kgpu_hours") / v3_cost.number("合计", V3_HOURS)

# %% r1-7 wrong: the data are not counted
dev1 = stages.number("AIME 2024", "R1-Dev1")
cold = dev1 - stages.number("AIME 2024", "R1-Zero")
r1_column, o1_column = main.labels("DeepSeek-R1"), main.labels("OpenAI-o1-1217")
higher = sum(float(a) > float(b) for a, b in zip(r1_column, o1_column, strict=True) if b)
share = 100 * (101 + 41) / 2788


# %% r1-8
def total(a):
    # a² − (2x² + 1)a + x⁴ − x = 0，判别式是 (2x + 1)²，所以 a = x² + x + 1 或 a = x² − x
    return (-1 + math.sqrt(4 * a - 3)) / 2  # 只剩一个根


# %% r1-8 wrong: all roots of the equation of degree four
def total(a):
    return 0.0


# %% r1-8 wrong: the negative root
def total(a):
    return (-1 - math.sqrt(4 * a - 3)) / 2


# %% r1-9
rewards = [1 + 0.1 + 1, 1 + 0.1 + 2 / 4, 0 + 0.1 + 1]

# %% r1-9 wrong: one language or none
rewards = [2.1, 1.1, 1.1]

# %% r1-9 wrong: nothing for a wrong answer
rewards = [2.1, 1.6, 0]

# %% r1-10
guess_base = 0.36
guess_dev1 = 1.0

# %% r1-10 wrong: a vote repairs everything
guess_base = 0.95
guess_dev1 = 1.0

# %% r1-10 wrong: a vote changes nothing
guess_base = 0.25
guess_dev1 = 0.76
