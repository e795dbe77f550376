"""Answers to the blank cells of v3.ipynb."""

# %% v3-1
strict = 20
lost = ["HellaSwag", "CLUEWSC"]

# %% v3-1 wrong: with the line of 0.3
strict = 22
lost = []

# %% v3-1 wrong: the rows that are not in front with the line either
strict = 20
lost = ["PIQA", "WinoGrande"]

# %% v3-2
ups, downs = 17, 2
chance = (171 + 19 + 1) / 2**19

# %% v3-2 wrong: fewer bits per byte taken for a loss
ups, downs = 16, 3
chance = 0.0022

# %% v3-2 wrong: exactly 17
ups, downs = 17, 2
chance = 171 / 2**19

# %% v3-3
per_doubling = [8.6 / math.log2(1510 / 769), 6.3 / math.log2(783 / 718)]

# %% v3-3 wrong: divided by the ratio
per_doubling = [8.6 / (1510 / 769), 6.3 / (783 / 718)]

# %% v3-4
share = (89.2 - 84.3) / ((89.2 - 84.3) + (82.6 - 79.8) + (89.5 - 87.0))
share_chat = 0

# %% v3-4 wrong: a quarter each
share = 0.25
share_chat = 0.25

# %% v3-5
percent = 100 * 5 / 2788

# %% v3-5 wrong: a share
percent = 5 / 2788


# %% v3-6
def rows_in_front(model, tie):
    column = base.columns.index(model)
    count = 0
    for row in base.rows:
        if row[2] == "BPB":
            continue
        best = max(float(cell) for cell in row[4:])
        count += float(row[column]) >= best - tie - 1e-9
    return count


# %% v3-6 wrong: bits per byte counted, the more the better
def rows_in_front(model, tie):
    column = base.columns.index(model)
    return sum(float(row[column]) >= max(map(float, row[4:])) - tie - 1e-9 for row in base.rows)


# %% v3-6 wrong: no ties
def rows_in_front(model, tie):
    column = base.columns.index(model)
    return sum(
        float(row[column]) > max(map(float, row[4:])) - tie for row in base.rows if row[2] != "BPB"
    )


# %% v3-7
gain_mtp = mtp.number("HumanEval", "小，有") - mtp.number("HumanEval", "小，无")

code_rows = [dict(zip(chat.columns, row, strict=True)) for row in chat.rows if row[0] == "Code"]
ahead = [
    float(r["DeepSeek-V3"]) - float(r["DeepSeek-V2-0506"])
    for r in code_rows
    if r["DeepSeek-V2-0506"]
]
lead_code = sum(ahead) / len(ahead)

gain_post = None

# %% v3-7 wrong: only the first is mended
gain_mtp = mtp.number("HumanEval", "小，有") - mtp.number("HumanEval", "小，无")
code_rows = [dict(zip(chat.columns, row, strict=True)) for row in chat.rows if row[0] == "Code"]
ahead = [float(r["DeepSeek-V3"]) - float(r["DeepSeek-V2-0506"] or 0) for r in code_rows]
lead_code = sum(ahead) / len(ahead)
gain_post = None

# %% v3-7 wrong: what cannot be compared is subtracted
gain_mtp = 6.1
ahead = [13.3, 21.7, 17.3, 34.1, 19.4]
lead_code = sum(ahead) / len(ahead)
gain_post = 28.6
