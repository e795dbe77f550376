"""How functions check what they are given: an error names the argument that is wrong.

arguments  a call held to the signature of the function: kind, range, shape
rules      what an annotation allows
fields     the same for the fields of a dataclass
devices    where kernels in Triton can run
numeric    wide in between, narrow outside: right for every finite number, or an error
"""
