"""The model, part by part, in the order in which a token meets them.

rope         positions as angles, and YaRN
cache        what attention keeps of a token
mla          multi-head latent attention
mla_triton   its absorbed form as one kernel of a GPU
attention    the baselines of it: multi-head, grouped-query, multi-query
mlp          the feed-forward network, SwiGLU
moe          many of them, of which a token meets a few
experts      these in one product each, on a GPU
moe_triton   the kernels around the products
balance      how they come to be evenly loaded
deepseek     the whole model
mtp          modules that predict the tokens after the next
speculative  decoding that drafts with them
counts       how many parameters all this has, and how many a token uses
"""
