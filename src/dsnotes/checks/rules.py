"""What an annotation allows: the rules by which `checks.arguments` checks the arguments of a call.

A rule says whether a value is of an allowed kind (if not: TypeError), whether it fits (if not:
ValueError), and describes what is allowed. A tensor that fits fixes the sizes of its named
dimensions; the later arguments must have the same sizes.
"""

import inspect
import math
import types
from collections.abc import Collection, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

import torch
from jaxtyping import AbstractArray
from torch import Tensor

Sizes = dict[str, Any]  # of the named dimensions, as far as the arguments before have set them

_LABELS = {"Float": "floating-point ", "Int": "signed whole-number ", "Integer": "whole-number "}
_CONTAINERS = (list, tuple, Sequence, Collection, Iterable)


class Rule:
    """What one annotation allows: here an instance of a class, and entries by a rule of theirs."""

    def __init__(self, of: Any, *entries: "Rule") -> None:
        self.of, self.entries, self.no_text = of, entries, of in _CONTAINERS
        entry = entries[0] if len(entries) == 1 else self
        self.plain = type(entry) is Rule and not entry.entries and entry.of not in _CONTAINERS
        self.plain = self.plain and entry is not self  # entries are instances of a class, no more

    def kind(self, value: Any) -> bool:
        """Whether at least its type is allowed: else the error is a TypeError."""
        return isinstance(value, self.of) and not (
            self.no_text and isinstance(value, str | bytes | Tensor)
        )

    def parts(self, value: Any) -> "list[tuple[str, Rule, Any]]":
        """Its parts that are looked at: the end of the name, the rule, the part itself."""
        if self.entries and isinstance(value, list | tuple):
            return [(f"[{i}]", self.entries[0], entry) for i, entry in enumerate(value)]
        return []

    def fits(self, value: Any, sizes: Sizes) -> bool:
        """Whether a value is allowed; its dimensions join `sizes`."""
        if not self.kind(value):
            return False
        if self.plain and isinstance(value, list | tuple):  # a model's weights, at every call
            return all(issubclass(of, self.entries[0].of) for of in set(map(type, value)))
        return not self.entries or all(r.fits(part, sizes) for _, r, part in self.parts(value))

    def text(self, sizes: Sizes) -> str:
        """What is allowed, in words."""
        name = "None" if self.of is types.NoneType else f"a {self.of.__name__}"
        return name + "".join(f" of entries each {rule.text(sizes)}" for rule in self.entries)

    def names(self) -> set[str]:
        """The named dimensions in it."""
        return {name for rule in self.entries for name in rule.names()}


class Record(Rule):
    """A named tuple whose fields hold tensors; the sizes in it are its own."""

    def __init__(self, of: Any, fields: dict[str, Rule]) -> None:
        super().__init__(of)
        self.fields = fields

    def parts(self, value: Any) -> list[tuple[str, Rule, Any]]:
        return [(f".{name}", rule, getattr(value, name)) for name, rule in self.fields.items()]

    def fits(self, value: Any, sizes: Sizes) -> bool:
        own: Sizes = {}
        return self.kind(value) and all(rule.fits(x, own) for _, rule, x in self.parts(value))


class Array(Rule):
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


class _Number(Rule):
    def kind(self, value: Any) -> bool:
        usual = type(value) in (int, float) if self.of is Real else type(value) is int
        return usual or (isinstance(value, self.of) and not isinstance(value, bool))

    def fits(self, value: Any, sizes: Sizes) -> bool:
        return self.kind(value) and (self.of is Integral or math.isfinite(value))

    def text(self, sizes: Sizes) -> str:
        return "a whole number" if self.of is Integral else "a finite number"


class _Choice(Rule):
    def kind(self, value: Any) -> bool:
        return type(value) in {type(choice) for choice in self.of}

    def fits(self, value: Any, sizes: Sizes) -> bool:
        return value in self.of if self.kind(value) else False

    def text(self, sizes: Sizes) -> str:
        return f"one of {self.of}"


class _Either(Rule):
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


def rule_of(annotation: Any) -> Rule | None:
    """The rule of an annotation; None where it allows everything, or more than is read here."""
    origin, args = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return Array(annotation)
    if annotation in (int, float):
        return _Number(Integral if annotation is int else Real)
    if origin is Literal:
        return _Choice(args)
    if origin in (Union, types.UnionType):
        rules = [rule_of(arg) for arg in args]
        return None if None in rules else _Either(None, *rules)  # type: ignore[arg-type]
    if origin is not None:
        entry = rule_of(args[0]) if origin in _CONTAINERS and len(args) == 1 else None
        return Rule(origin, *filter(None, [entry]))
    if not isinstance(annotation, type) or annotation in (inspect.Parameter.empty, object, Any):
        return None
    if issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        fields = {name: rule_of(of) for name, of in inspect.get_annotations(annotation).items()}
        return Record(annotation, {n: r for n, r in fields.items() if isinstance(r, Array)})
    return Rule(annotation)
