"""Weights as files: read, written, and handed to transformers.

shards      the files of a checkpoint
checkpoint  the released layout, weights in FP8 with their scales
hf          to transformers' classes and back
"""
