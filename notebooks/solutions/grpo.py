"""Answers to the blank cells of grpo.ipynb."""

# %% grpo-1
right, wrong = math.sqrt(3), -1 / math.sqrt(3)
right_sample, wrong_sample = (a * math.sqrt(15 / 16) for a in (right, wrong))

# %% grpo-1 wrong: not divided by the std
right, wrong = 0.75, -0.25
right_sample, wrong_sample = right, wrong

# %% grpo-1 wrong: divided by the variance
right, wrong = 4.0, -4 / 3
right_sample, wrong_sample = right, wrong

# %% grpo-1 wrong: the other way round
right, wrong = 1 / math.sqrt(3), -math.sqrt(3)
right_sample, wrong_sample = right, wrong

# %% grpo-1 wrong: the sample std makes it larger
right, wrong = math.sqrt(3), -1 / math.sqrt(3)
right_sample, wrong_sample = (a * math.sqrt(16 / 15) for a in (right, wrong))

# %% grpo-2
values = [-0.8, -1.5, -0.5, -1.5]
slopes = [0, -1, -1, -1]

# %% grpo-2 wrong: only clip
values = [-0.8, -1.2, -0.5, -1.5]
slopes = [0, 0, -1, -1]

# %% grpo-2 wrong: not clipped
values = [-0.5, -1.5, -0.5, -1.5]
slopes = [-1, -1, -1, -1]

# %% grpo-2 wrong: a width of 10 taken for a bound of 0.1
values = [-0.8, -1.5, -0.9, -1.5]
slopes = [0, -1, 0, -1]

# %% grpo-2 wrong: slope of the wrong sign
values = [-0.8, -1.5, -0.5, -1.5]
slopes = [0, 1, 1, 1]

# %% grpo-3
deepseekmath = [-1 / (2 * 50), -1 / (2 * 500)]
dapo = [-1 / 550, -1 / 550]
dr_grpo = [-1 / 2000, -1 / 2000]

# %% grpo-3 wrong: outputs are not averaged
deepseekmath = [-1 / 50, -1 / 500]
dapo = [-1 / 550, -1 / 550]
dr_grpo = [-1 / 1000, -1 / 1000]

# %% grpo-3 wrong: DAPO divided by the length of each
deepseekmath = [-1 / 100, -1 / 1000]
dapo = [-1 / 100, -1 / 1000]
dr_grpo = [-1 / 2000, -1 / 2000]

# %% grpo-3 wrong: the sign
deepseekmath = [1 / 100, 1 / 1000]
dapo = [1 / 550, 1 / 550]
dr_grpo = [1 / 2000, 1 / 2000]

# %% grpo-3 wrong: the constant alone
deepseekmath = [-1 / 100, -1 / 1000]
dapo = [-1 / 550, -1 / 550]
dr_grpo = [-1 / 1000, -1 / 1000]


# %% grpo-4
def unbiased(k, log_p, log_old):
    return (log_p - log_old).exp() * k


# %% grpo-4 wrong: nothing corrected
def unbiased(k, log_p, log_old):
    return k


# %% grpo-4 wrong: upside down
def unbiased(k, log_p, log_old):
    return (log_old - log_p).exp() * k


# %% grpo-4 wrong: the difference of log-probs
def unbiased(k, log_p, log_old):
    return (log_p - log_old) * k


# %% grpo-5
def leave_one_out(centred, size):
    return centred * size / (size - 1)


# %% grpo-5 wrong: upside down
def leave_one_out(centred, size):
    return centred * (size - 1) / size


# %% grpo-5 wrong: unchanged
def leave_one_out(centred, size):
    return centred


# %% grpo-6
guess = 0.75

# %% grpo-6 wrong: as the variance of a mean
guess = 0.125

# %% grpo-6 wrong: larger
guess = 2.0

# %% grpo-7
from_right = 1 / 5 + 4 / 5 * 0.875**6
from_chance = 1 / 5

# %% grpo-7 wrong: every step right
from_right = 0.9**6
from_chance = 0.2

# %% grpo-7 wrong: the distance shrinks by 0.9
from_right = 0.2 + 0.8 * 0.9**6
from_chance = 0.2

# %% grpo-7 wrong: chance shrinks too
from_right = 0.2 + 0.8 * 0.875**6
from_chance = 0.2 * 0.875**6


# %% grpo-9
def loss_of(logits, tokens, old_log_probs, rewards, mask):
    a = group_advantages(rewards).flatten()[:, None]
    log_p = logits[:, :-1].log_softmax(-1)
    log_probs = log_p.gather(-1, tokens[:, 1:, None])[..., 0]
    rho = (log_probs - old_log_probs).exp()
    terms = torch.min(rho * a, rho.clamp(0.8, 1.2) * a)
    return -((terms * mask).sum(1) / mask.sum(1)).mean()


# %% grpo-9 wrong: only the shift is mended
def loss_of(logits, tokens, old_log_probs, rewards, mask):
    a = ((rewards - rewards.mean()) / rewards.std()).flatten()[:, None]
    log_probs = token_log_probs(logits, tokens)
    rho = (log_probs - old_log_probs).exp()
    terms = rho.clamp(0.8, 1.2) * a
    return -((terms * mask).sum(1) / mask.sum(1)).mean()


# %% grpo-9 wrong: the clip is left as it was
def loss_of(logits, tokens, old_log_probs, rewards, mask):
    a = group_advantages(rewards).flatten()[:, None]
    rho = (token_log_probs(logits, tokens) - old_log_probs).exp()
    terms = rho.clamp(0.8, 1.2) * a
    return -((terms * mask).sum(1) / mask.sum(1)).mean()


# %% grpo-9 wrong: no clip at all
def loss_of(logits, tokens, old_log_probs, rewards, mask):
    a = group_advantages(rewards).flatten()[:, None]
    rho = (token_log_probs(logits, tokens) - old_log_probs).exp()
    return -((rho * a * mask).sum(1) / mask.sum(1)).mean()


# %% grpo-10
grpo_factor = 1
dr_grpo_factor = 10

# %% grpo-10 wrong: both grow
grpo_factor = 10
dr_grpo_factor = 10

# %% grpo-10 wrong: the three counts
grpo_factor = 3
dr_grpo_factor = 13

# %% grpo-10 wrong: neither grows
grpo_factor = 1
dr_grpo_factor = 1


# %% grpo-11
def kl_term(log_probs, ref_log_probs):
    log_x = ref_log_probs - log_probs
    return log_x.exp() - 1 - log_x


# %% grpo-11 wrong: the sign
def kl_term(log_probs, ref_log_probs):
    return ref_log_probs - log_probs


# %% grpo-11 wrong: the mean of all
def kl_term(log_probs, ref_log_probs):
    return k3(log_probs, ref_log_probs).mean()


# %% grpo-11 wrong: the distance of the logs
def kl_term(log_probs, ref_log_probs):
    return (ref_log_probs - log_probs).abs()


# %% grpo-11 wrong: k2 without its half
def kl_term(log_probs, ref_log_probs):
    return (ref_log_probs - log_probs).square()


# %% grpo-12
def advantages_of(rewards, values, gamma, lam):
    found, following, after = [], 0.0, 0.0
    for r, v in zip(reversed(rewards), reversed(values), strict=True):
        delta = r + gamma * after - v
        following = delta + gamma * lam * following
        after = v
        found.append(following)
    return found[::-1]


# %% grpo-12 wrong: only one step
def advantages_of(rewards, values, gamma, lam):
    after = [*values[1:], 0.0]
    return [r + gamma * a - v for r, v, a in zip(rewards, values, after, strict=True)]


# %% grpo-12 wrong: a value after the end
def advantages_of(rewards, values, gamma, lam):
    after = [*values[1:], values[-1]]
    return [r + gamma * a - v for r, v, a in zip(rewards, values, after, strict=True)]


# %% grpo-12 wrong: in reverse
def advantages_of(rewards, values, gamma, lam):
    return [r - v for r, v in zip(rewards, values, strict=True)][:2]
