"""The files of a checkpoint: safetensors, and the index that says which tensor lies where.

A download goes wrong in a few ways: a file is missing, cut short, or a Git LFS pointer in its
place. Each is told apart here and named, before anything is made of its content.

Departures
    - One `model.safetensors` without an index is read as well: small models are saved so.
    - Files lie in the folder itself. A name with a separator is refused, a symbolic link is
      followed: that is how a download cache keeps its snapshots.
"""

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dsnotes.config_file import LFS, read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors that the index lists, or those of the one file where there is no index.

    ValueError, naming the file, when one is missing or is something else, when the index is
    malformed or points out of the folder, and when it does not list what the files hold.

        >>> from safetensors.torch import save_file
        >>> save_file({"weight": torch.ones(2, 3)}, SINGLE)
        >>> read_tensors(Path())["weight"].shape
        torch.Size([2, 3])
    """
    if not (folder / INDEX).exists():
        if not (folder / SINGLE).exists():
            raise ValueError(f"{folder} must hold {INDEX} or {SINGLE}, and holds neither")
        return _read_shard(folder, SINGLE)
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f'{INDEX} must hold an object "weight_map", got {weight_map!r}')
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file or set(file) & set("/\\:") or file in (".", ".."):
            raise ValueError(f"{INDEX} must name a file of its own folder for {name}, got {file!r}")
    if (folder / SINGLE).exists() and SINGLE not in weight_map.values():
        raise ValueError(f"{folder} holds two checkpoints, {SINGLE} and the files of {INDEX}")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(weight_map.values())):
        listed = {name for name, where in weight_map.items() if where == file}
        found = _read_shard(folder, file)
        if listed != found.keys():
            raise ValueError(f"{INDEX} and {file} disagree on {some(listed ^ found.keys())}")
        tensors |= found
    return tensors


def _read_shard(folder: Path, file: str) -> dict[str, Tensor]:
    """The tensors of one safetensors file; ValueError says what it is if it is none."""
    path = folder / file
    try:
        if not path.is_file():  # false for pipes and devices, which could be read for ever
            raise ValueError(f"{folder} does not hold {file}, or not as a file")
        with path.open("rb") as opened:
            if opened.read(len(LFS)) == LFS:
                raise ValueError(
                    f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`"
                )
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is no safetensors file, or it was cut short: "
            f"{error}"
        ) from error
    except OSError as error:
        raise ValueError(f"{folder} holds {file}, which cannot be read: {error}") from error


def some(names: Iterable[str]) -> str:
    """The first names and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more
