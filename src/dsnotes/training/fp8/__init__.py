"""FP8: number formats, matrix products in these formats, and layers that train with them.

formats  the numbers, and quantisation in small groups with one scale each
gemm     products of quantised matrices, and how precisely tensor cores add them up
linear   a linear layer whose three products take FP8 inputs
"""
