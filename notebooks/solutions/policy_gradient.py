"""Answers to the blank cells of policy_gradient.ipynb."""


# %% policy_gradient-1
def estimate(logits, chosen, rewards, baseline):
    pi = logits.softmax(0)
    grad_log_pi = torch.eye(len(logits))[chosen] - pi  # (samples, answers)
    return ((rewards - baseline)[:, None] * grad_log_pi).mean(0)


# %% policy_gradient-1 wrong: the baseline is left out
def estimate(logits, chosen, rewards, baseline):
    grad_log_pi = torch.eye(len(logits))[chosen] - logits.softmax(0)
    return (rewards[:, None] * grad_log_pi).mean(0)


# %% policy_gradient-1 wrong: only the chosen logit is pushed
def estimate(logits, chosen, rewards, baseline):
    return ((rewards - baseline)[:, None] * torch.eye(len(logits))[chosen]).mean(0)


# %% policy_gradient-1 wrong: the sum over samples
def estimate(logits, chosen, rewards, baseline):
    grad_log_pi = torch.eye(len(logits))[chosen] - logits.softmax(0)
    return ((rewards - baseline)[:, None] * grad_log_pi).sum(0)


# %% policy_gradient-1 wrong: the gradient of a loss
def estimate(logits, chosen, rewards, baseline):
    grad_log_pi = torch.eye(len(logits))[chosen] - logits.softmax(0)
    return -((rewards - baseline)[:, None] * grad_log_pi).mean(0)
