"""Small, exact PyTorch implementations of the techniques behind DeepSeek-V3 and R1.

The rooms are the parts of the book, and each module is one mechanism. They lean on what stands
above them in this list, and on nothing below:

    config    everything about the architecture of a model
    model     the model, part by part
    training  the loop, FP8, pipelines
    rl        rewards, GRPO and PPO
    weights   checkpoints in the released layout
    figures   the look of the figures
    practice  exercises: what a notebook checks, mechanisms to write or to mend

`checks` and `data` serve all of them. Importing `dsnotes` loads neither torch nor matplotlib.
"""

__version__ = "0.1.0"
