"""Every field of a dataclass checked against its type, in one place.

A dataclass does not check its values. Here the annotation of a field says what the field holds, and
an error names the field that holds something else: a text instead of a number, a number instead of
a truth value, a number that is not finite, a mapping instead of an object.
"""

import math
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin


def check_fields(instance: Any, *, within: str = "", may_be_zero: Collection[str] = ()) -> None:
    """ValueError names the first field whose value does not fit its annotation.

    Numbers must be above 0; those in `may_be_zero` may also be 0. Known annotations are int, float,
    bool, a Literal, a dataclass, each of these `| None`, and `tuple[int, ...]` (0 allowed). A whole
    number in a float field is turned into a float, in a frozen instance too. `within` is put before
    the names in errors.

        >>> from dsnotes.config import RopeScaling
        >>> check_fields(RopeScaling(factor=40, original_max_position_embeddings=4096))
    """
    for field in fields(instance):
        value = _checked(
            within + field.name,
            getattr(instance, field.name),
            field.type,
            zero=field.name in may_be_zero,
        )
        object.__setattr__(instance, field.name, value)


def _checked(name: str, value: Any, kind: Any, *, zero: bool) -> Any:
    if isinstance(kind, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (k for k in get_args(kind) if k is not NoneType)
    if get_origin(kind) is Literal:
        fits = isinstance(value, str) and value in get_args(kind)
        expected = f"one of {get_args(kind)}"
    elif kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits, expected = whole and value >= 1 - zero, f"a whole number of at least {1 - zero}"
    elif kind is float:
        bound = "of at least 0" if zero else "above 0"
        fits, expected = _is_number(value, zero=zero), f"a finite number {bound}"
        value = float(value) if fits else value
    elif kind == tuple[int, ...]:
        fits = isinstance(value, tuple | list) and all(type(v) is int and v >= 0 for v in value)
        expected, value = "whole numbers of at least 0", tuple(value) if fits else value
    elif isinstance(kind, type) and (kind is bool or is_dataclass(kind)):
        fits, expected = isinstance(value, kind), "true or false" if kind is bool else kind.__name__
    else:
        raise TypeError(f"{name} has an annotation that is not known here: {kind!r}")
    if not fits:
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return value


def _is_number(value: Any, *, zero: bool) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False
    return math.isfinite(number) and (number > 0 or (zero and number == 0))
