"""Reinforcement learning: what is rewarded, what is optimised, and the runs that show both.

answers       reading what people write as an answer
arithmetic    the exact value of an expression a stranger wrote
reward        rewards by rule
reward_model  rewards by a model, trained on pairs
objective     what PPO and GRPO share
grpo          group relative policy optimization
ppo           proximal policy optimization, with a critic
rollout       completions sampled from a model, and the step that learns from them
shellgame     a task a program can check
keypoints     a task whose reward model can be fooled
presets       the sizes of a small R1-Zero
r1_zero       a small R1-Zero: supervised text, then GRPO
verse         the rules of the regulated quatrain
regulated     those of four forms of verse, each to be left out by name
novelty       whether verse is new and varied, which no rule asks
poet          a model that writes quatrains by the rules
"""
