"""What DeepSeek published after V3 and R1, one module a mechanism.

config        the sizes of V3.2 and V4, with the released names
ledger        bytes of keys and values a token, and parameters, from V1 to V4.1
indexer       the lightning indexer of V3.2: scores, the best k, the two losses
sparse        latent attention over the tokens that an indexer chooses
nsa           native sparse attention: summaries, chosen blocks and a window, weighed by gates
compressor    entries of several tokens in V4, and the indexer that chooses among them
compressed    attention of V4: window, CSA and HCA in one softmax
compressed_cache  what its layers keep: a state of fixed size, and the entries
hyper         manifold-constrained hyper-connections: streams mixed by a doubly stochastic matrix
newton_schulz singular values brought to 1 by matrix products
muon          the optimizer of V4: momentum, Newton-Schulz, AdamW for the rest
offpolicy     V3.2's objective: unbiased KL, off-policy mask, the experts and words of sampling kept
distillation  on-policy distillation of several experts into one student
self_verification  rewards of DeepSeekMath-V2 for verifier and prover
fp4           four-bit weights under power-of-two scales, exact in FP8, trained straight through
eplb          copies of hot experts, and the GPUs they lie on
dispatch      experts on several ranks: tokens to them and back
dspark        drafts of several places at once, and how many of them to verify
routing       experts in V4: another affinity, a table for the first layers, a clamp
deepseek_v4   all of V4 assembled
"""
