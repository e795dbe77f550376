"""What every function does with what it is given: say what is wrong with it, by name.

arguments  a call held to the signature of the function: kind, range, shape
rules      what an annotation allows
fields     the same for the fields of a dataclass
numeric    wide in between, narrow outside: right for every finite number, or an error
"""
