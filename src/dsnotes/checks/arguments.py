"""Arguments checked against the signature: a function accepts what its annotations say, no more.

`checked` reads the annotations of a function once and compares every call with them: the kind of
numbers in a tensor, its shape, and that a size with one name is the same in all arguments. PyTorch
alone would broadcast (6, 1) against (6, 7) and return a number that nobody asked for.

    Float, Int, Bool ...    kind of numbers; Int is signed, Integer of any whole-number type, Float
                            is bfloat16 or wider
    "batch seq"             two dimensions, whose sizes are those of `batch` and `seq` elsewhere
    "3", "_", "..."         a fixed size, any size, any dimensions
    "*batch", "*#batch"     several dimensions under one name, and what broadcasts to them
    int, float, bool, ...   whole number; finite number; an instance of the class; `|` is or
    a named tuple           an instance, and what its own annotations say of its tensors

A signature cannot express a range or an order. The function checks these itself, often with
`at_least` and `token_ids` of `dsnotes.checks.numeric`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from dsnotes.checks.rules import Record, Rule, Sizes, rule_of

Function = TypeVar("Function", bound=Callable[..., Any])


def checked(function: Function) -> Function:
    """The function, with ValueError or TypeError for arguments that its annotations do not allow.

    The error names the argument, what was expected and what came. A wrong type or kind of numbers
    is a TypeError. A wrong shape is a ValueError, and so is a float that is NaN or infinite, or a
    value that is not in a Literal.

        >>> @checked
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> double(1.5)
        Traceback (most recent call last):
        TypeError: x must be a whole number, got 1.5
    """
    parameters = inspect.signature(function).parameters.values()
    plan = [
        (place, parameter.name, rule)
        for place, parameter in enumerate(parameters)
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (rule := rule_of(parameter.annotation)) is not None
    ]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        sizes: Sizes = {}
        count = len(args)
        for place, name, rule in plan:
            if place < count:
                value = args[place]
            elif name in kwargs:
                value = kwargs[name]
            else:
                continue  # the default; or missing, and Python says so
            if not rule.fits(value, sizes):
                given = [(n, r, args[i] if i < count else kwargs.get(n)) for i, n, r in plan]
                raise _refusal(name, given)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def check_fields(record: Any) -> None:
    """Check the fields of a dataclass in its `__post_init__`; the errors are those of `checked`."""
    fields = dataclasses.fields(record)
    rules = [(field.name, rule_of(field.type), getattr(record, field.name)) for field in fields]
    given = [(name, rule, value) for name, rule, value in rules if rule is not None]
    for name, rule, value in given:
        if not rule.fits(value, {}):
            raise _refusal(name, given)


def _refusal(name: str, given: list[tuple[str, Rule, Any]]) -> Exception:
    """The error for the argument `name`, the first one that does not fit."""
    sizes: Sizes = {}
    owner: dict[str, str] = {}  # which argument has set a size
    for argument, rule, value in given:
        if argument == name:
            break
        rule.fits(value, sizes)
        owner = {size: owner.get(size, argument) for size in sizes}
    if rule.kind(value):
        sizes = {} if isinstance(rule, Record) else sizes
        for suffix, inner, part in rule.parts(value):
            if not inner.fits(part, sizes):
                name, rule, value = name + suffix, inner, part
                break
    like = " and ".join(sorted({owner[size] for size in rule.names() & owner.keys()}))
    sizes_of = f" (sizes as in {like})" if like else ""
    if isinstance(value, Tensor):
        got = f"{value.dtype} of shape {tuple(value.shape)}"
    else:
        simple = value is None or isinstance(value, bool | int | float | str)
        got = repr(value) if simple else f"a {type(value).__name__}"
    error = ValueError if rule.kind(value) else TypeError
    return error(f"{name} must be {rule.text(sizes)}{sizes_of}, got {got}")
