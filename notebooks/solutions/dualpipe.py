"""Answers to the blank cells of dualpipe.ipynb."""

# %% dualpipe-1
idle_1f1b = 15 * (1 + 2)
idle_zb1p = 15 * (1 + 2 - 2 * 1)
idle_dualpipe = 7 * (2.5 + 2 - 3 * 1)

# %% dualpipe-1 wrong: an overlap that gains nothing
idle_1f1b = 45
idle_zb1p = 15
idle_dualpipe = 14

# %% dualpipe-1 wrong: B without the weights
idle_1f1b = 30
idle_zb1p = 15
idle_dualpipe = 10.5

# %% dualpipe-2
# h = 4，r' = 2；第 4 步一轮两对，第 5 步一轮一对
counts_of_2 = (2, 3, 1, 5, 1, 3, 1, 3)
pairs_of_2 = 2 * 5 + 1

# %% dualpipe-2 wrong: 20 micro-batches each way
counts_of_2 = (2, 3, 1, 15, 1, 3, 1, 3)
pairs_of_2 = 31

# %% dualpipe-2 wrong: counts the rounds of step 4, not its pairs
counts_of_2 = (2, 3, 1, 5, 1, 3, 1, 3)
pairs_of_2 = 6

# %% dualpipe-3
longest = 0  # 或 7：两端


def limit(stages):
    """F&B from which on DualPipe idles more than ZB1P."""
    return 3 + 1 / (stages - 3)


# %% dualpipe-3 wrong: table 2, which speaks of the middle
longest = 0


def limit(stages):
    """F&B from which on DualPipe idles more than ZB1P."""
    return 1 + (stages - 1) / (stages // 2 - 1)


# %% dualpipe-3 wrong: the middle
longest = 3


def limit(stages):
    """F&B from which on DualPipe idles more than ZB1P."""
    return 3 + 1 / (stages - 3)


# %% dualpipe-4
dispatch_ms = 4096 * 4 * 7168 * 1 / 50e9 * 1e3
combine_ms = 4096 * 4 * 7168 * 2 / 50e9 * 1e3

# %% dualpipe-4 wrong: seconds
dispatch_ms = 4096 * 4 * 7168 * 1 / 50e9
combine_ms = 4096 * 4 * 7168 * 2 / 50e9

# %% dualpipe-4 wrong: one copy of each token
dispatch_ms = 4096 * 7168 * 1 / 50e9 * 1e3
combine_ms = 4096 * 7168 * 2 / 50e9 * 1e3

# %% dualpipe-5
idle_v = 15 * (1.5 + 1 - 1.5)
parameters_v = 2 * 1 / 2
activations_v = 33 / 2

# %% dualpipe-5 wrong: stages as large as before
idle_v = 15 * (3 + 2 - 3)
parameters_v = 2
activations_v = 33


# %% dualpipe-6
def all_late(num_ranks, num_micro_batches):
    """ZB1P with every weight backward at the end."""
    schedule = zb1p(num_ranks, num_micro_batches)
    late = Kind.BACKWARD_WEIGHT
    ranks = [
        (
            *(a for a in actions if a.kind is not late),
            *(a for a in actions if a.kind is late),
        )
        for actions in schedule.actions
    ]
    return replace(schedule, name="全部推迟", actions=tuple(ranks))


# %% dualpipe-6 wrong: ZB1P as it was
def all_late(num_ranks, num_micro_batches):
    """ZB1P with every weight backward at the end."""
    schedule = zb1p(num_ranks, num_micro_batches)
    ranks = schedule.actions
    return replace(schedule, name="全部推迟", actions=tuple(ranks))


# %% dualpipe-6 wrong: the weight backwards are lost
def all_late(num_ranks, num_micro_batches):
    """ZB1P with every weight backward at the end."""
    schedule = zb1p(num_ranks, num_micro_batches)
    ranks = [
        tuple(a for a in actions if a.kind is not Kind.BACKWARD_WEIGHT)
        for actions in schedule.actions
    ]
    return replace(schedule, name="全部推迟", actions=tuple(ranks))


# %% dualpipe-10
total = 64 * 3 / (1 - 0.45)  # 64 个微批次的总时间，从占比 0.45 算出
total += 64 * 4.5  # 多出来的 64 个，每个只添一对
guess = 1 - 128 * 3 / total

# %% dualpipe-10 wrong: as with 64 micro-batches
guess = 0.45

# %% dualpipe-10 wrong: halved with the ends
guess = 0.225

# %% dualpipe-10 wrong: as if nothing but pairs were left
guess = 0.34
