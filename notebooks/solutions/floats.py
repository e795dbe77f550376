"""Answers to the blank cells of floats.ipynb."""

# %% floats-1
# 在 4 与 8 之间间隔是 2⁻⁵，一半是 0.0156，比 0.01 大
stuck = 4

# %% floats-1 wrong: one octave too early
stuck = 2

# %% floats-1 wrong: one octave too late
stuck = 8
