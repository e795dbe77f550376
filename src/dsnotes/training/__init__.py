"""Training: the loop, its texts, numbers of eight bits, and pipelines over several processes.

texts      small data sets
poems      quatrains, one token a character
verses     four forms of verse with their titles, in sequences of unequal length
padding    what is not counted at the end of the shorter ones
loop       one optimizer step after the other
growth     one model that grows, part by part
state      what a run depends on, to stop it and take it up again
fp8/       eight-bit floating point
dualpipe/  pipelines in both directions
pipelined  a model cut into the stages of one
"""
