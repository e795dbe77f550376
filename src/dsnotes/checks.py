"""Arguments held to the signature: what a function's annotations say is what it takes, and no more.

`checked` reads the annotations of a function once and compares every call with them: the kind of
numbers in a tensor, its shape, and that a size with one name is the same in all arguments. PyTorch
would rather broadcast (6, 1) against (6, 7) and return another number than the one asked for.

    Float, Int, Bool ...    kind of numbers; Int is signed, Integer of any whole-number type, Float
                            is bfloat16 or wider
    "batch seq"             two dimensions, whose sizes are those of `batch` and `seq` elsewhere
    "3", "_", "..."         a fixed size, any size, any dimensions
    "*batch", "*#batch"     several dimensions under one name, and what broadcasts to them
    int, float, bool, ...   whole number; finite number; an instance of the class; `|` is or

What a signature cannot say (a range, an order) the function checks itself, with `at_least` and
`token_ids` of `dsnotes.numeric` where they serve.
"""

import functools
import inspect
import math
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import torch
from jaxtyping import AbstractArray
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
Sizes = dict[str, Any]  # of the named dimensions, as far as the arguments before have set them

_LABELS = {"Float": "floating-point ", "Int": "signed whole-number ", "Integer": "whole-number "}
_CONTAINERS = (list, tuple, Sequence, Collection, Iterable)


def checked(function: Function) -> Function:
    """The function, with ValueError or TypeError for arguments that its annotations do not allow.

    The error names the argument, what was expected and what came. TypeError: another type or kind
    of numbers; ValueError: another shape, NaN or infinity for a float, no member of a Literal.

        >>> norm = checked(lambda x: x.norm())  # nothing is annotated, nothing checked
    """
    parameters = inspect.signature(function).parameters.values()
    plan = [
        (place, parameter.name, rule)
        for place, parameter in enumerate(parameters)
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (rule := _rule(parameter.annotation)) is not None
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


class _Rule:
    """What one annotation allows: here an instance of a class, and entries by a rule of theirs."""

    def __init__(self, of: Any, *entries: "_Rule") -> None:
        self.of, self.entries, self.no_text = of, entries, of in _CONTAINERS

    def kind(self, value: Any) -> bool:
        """Whether at least its type is allowed: else the error is a TypeError."""
        return isinstance(value, self.of) and not (
            self.no_text and isinstance(value, str | bytes | Tensor)
        )

    def fits(self, value: Any, sizes: Sizes) -> bool:
        """Whether a value is allowed; its dimensions join `sizes`."""
        if not self.kind(value):
            return False
        if self.entries and isinstance(value, list | tuple):
            return all(self.entries[0].fits(entry, sizes) for entry in value)
        return True

    def text(self, sizes: Sizes) -> str:
        """What is allowed, in words."""
        name = "None" if self.of is types.NoneType else f"a {self.of.__name__}"
        return name + "".join(f" of entries each {rule.text(sizes)}" for rule in self.entries)

    def names(self) -> set[str]:
        """The named dimensions in it."""
        return {name for rule in self.entries for name in rule.names()}


class _Array(_Rule):
    def __init__(self, annotation: Any) -> None:
        super().__init__(Tensor)
        dtypes = annotation.dtypes if isinstance(annotation.dtypes, tuple) else ()
        wide = {name for name in dtypes if not name.startswith(("float8", "float4"))}
        self.dtypes = {getattr(torch, n) for n in wide if hasattr(torch, n)}
        label = annotation.dtype.__name__
        self.label = _LABELS.get(label, f"{label.lower()} ") if dtypes else ""
        self.dims: list[str] = annotation.dim_str.split()
        self.group = next((i for i, dim in enumerate(self.dims) if dim[0] in "*."), None)

    def kind(self, value: Any) -> bool:
        return isinstance(value, Tensor) and (not self.dtypes or value.dtype in self.dtypes)

    def fits(self, value: Any, sizes: Sizes) -> bool:
        if not self.kind(value):
            return False
        shape, dims, at = value.shape, self.dims, self.group
        if at is not None:
            behind = at + len(shape) - len(dims) + 1
            if behind < at or not _group_fits(dims[at], shape[at:behind], sizes):
                return False
            shape, dims = shape[:at] + shape[behind:], dims[:at] + dims[at + 1 :]
        if len(shape) != len(dims):
            return False
        for dim, size in zip(dims, shape, strict=True):
            if dim.isdigit():
                if int(dim) != size:
                    return False
            elif dim != "_" and sizes.setdefault(dim, size) != size:
                return False
        return True

    def text(self, sizes: Sizes) -> str:
        shape = f"({', '.join(self.dims)})"
        found = [sizes.get(dim, dim) for dim in self.dims]
        known = f"({', '.join(str(n if isinstance(n, int | str) else list(n)) for n in found)})"
        return f"a {self.label}tensor of shape {shape}" + ("" if known == shape else f" = {known}")

    def names(self) -> set[str]:
        return set(self.dims)


def _group_fits(dim: str, shape: Sequence[int], sizes: Sizes) -> bool:
    """Several dimensions under one name; with "#" they need only broadcast to those."""
    if dim == "...":
        return True
    if not dim.startswith("*#"):
        return bool(sizes.setdefault(dim, shape) == shape)
    whole = sizes.get("*" + dim[2:], (sizes[dim[2:]],) if dim[2:] in sizes else shape)
    pairs = zip(reversed(shape), reversed(whole), strict=False)
    return len(shape) <= len(whole) and all(a in (1, b) for a, b in pairs)


class _Number(_Rule):
    def kind(self, value: Any) -> bool:
        usual = type(value) in (int, float) if self.of is Real else type(value) is int
        return usual or (isinstance(value, self.of) and not isinstance(value, bool))

    def fits(self, value: Any, sizes: Sizes) -> bool:
        return self.kind(value) and (self.of is Integral or math.isfinite(value))

    def text(self, sizes: Sizes) -> str:
        return "a whole number" if self.of is Integral else "a finite number"


class _Choice(_Rule):
    def kind(self, value: Any) -> bool:
        return type(value) in {type(choice) for choice in self.of}

    def fits(self, value: Any, sizes: Sizes) -> bool:
        return value in self.of if self.kind(value) else False

    def text(self, sizes: Sizes) -> str:
        return f"one of {self.of}"


class _Either(_Rule):
    def kind(self, value: Any) -> bool:
        return any(rule.kind(value) for rule in self.entries)

    def fits(self, value: Any, sizes: Sizes) -> bool:
        for rule in self.entries:
            if rule.fits(value, found := dict(sizes)):
                sizes.update(found)
                return True
        return False

    def text(self, sizes: Sizes) -> str:
        return " or ".join(rule.text(sizes) for rule in self.entries)


def _rule(annotation: Any) -> _Rule | None:
    """The rule of an annotation; None where it allows everything, or more than is read here."""
    origin, args = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return _Array(annotation)
    if annotation in (int, float):
        return _Number(Integral if annotation is int else Real)
    if origin is Literal:
        return _Choice(args)
    if origin in (Union, types.UnionType):
        rules = [_rule(arg) for arg in args]
        return None if None in rules else _Either(None, *rules)  # type: ignore[arg-type]
    if origin is not None:
        entry = _rule(args[0]) if origin in _CONTAINERS and len(args) == 1 else None
        return _Rule(origin, *filter(None, [entry]))
    named = isinstance(annotation, type) and annotation not in (inspect.Parameter.empty, object)
    return _Rule(annotation) if named else None


def _refusal(name: str, given: list[tuple[str, _Rule, Any]]) -> Exception:
    """The error for the argument `name`, the first of those given that does not fit."""
    sizes: Sizes = {}
    owner: dict[str, str] = {}  # which argument has set a size
    for argument, rule, value in given:
        if argument == name:
            break
        rule.fits(value, sizes)
        owner = {size: owner.get(size, argument) for size in sizes}
    if isinstance(value, list | tuple) and type(rule) is _Rule and rule.kind(value):
        name, value = next(
            (f"{name}[{i}]", entry)
            for i, entry in enumerate(value)
            if not rule.entries[0].fits(entry, sizes)
        )
        rule = rule.entries[0]
    like = " and ".join(sorted({owner[size] for size in rule.names() & owner.keys()}))
    sizes_of = f" (sizes as in {like})" if like else ""
    if isinstance(value, Tensor):
        got = f"{value.dtype} of shape {tuple(value.shape)}"
    else:
        simple = value is None or isinstance(value, bool | int | float | str)
        got = repr(value) if simple else f"a {type(value).__name__}"
    error = ValueError if rule.kind(value) else TypeError
    return error(f"{name} must be {rule.text(sizes)}{sizes_of}, got {got}")
