"""Pickled weights, as torch.save writes them, read without running what a pickle asks for.

torch's own reader (weights_only) calls nothing but what rebuilds tensors. Numbers of numpy, which nanoGPT's
checkpoints often hold, are rebuilt here: numpy's functions for it were not made for hostile files.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptkit.errors import InputError
from gptkit.model.loading import State
from gptkit.system.reading import require_regular

NUMBER = re.compile(r"[fiu][1248]|b1")  # numpy's name for a type of numbers, without the order of its bytes


class NumberType:
    """What a pickled numpy.dtype becomes."""

    def __init__(self, name: str, align: bool = False, copy: bool = True) -> None:
        if not NUMBER.fullmatch(name):
            raise ValueError(f"numpy's type {name!r} is not one of a number")
        self.name, self.order = name, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def number(kind: NumberType, raw: bytes) -> Any:
    """Return the Python number that a pickled numpy scalar becomes."""
    return np.frombuffer(raw, kind.order + kind.name).item()


NUMBERS: list[Any] = [
    (NumberType, "numpy.dtype"),
    (number, "numpy.core.multiarray.scalar"),  # numpy 1
    (number, "numpy._core.multiarray.scalar"),
]


def load_pickled(path: Path, fix: str) -> Any:
    """Return what a file of torch.save holds, its tensors memory-mapped if it has the zip format of current torch.

    InputError, with `fix` if nothing better is known, for a file that is damaged or holds more than weights.
    """
    size = require_regular(path, fix)
    try:
        is_zip = zipfile.is_zipfile(path)
        parts = zipfile.ZipFile(path).infolist() if is_zip else []
        if (
            any(part.compress_type != zipfile.ZIP_STORED for part in parts)
            or sum(part.file_size for part in parts) > size
        ):
            raise ValueError("compressed, or parts that overlap")  # torch writes neither; both could fill the memory
        with torch.serialization.safe_globals(NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # pickle, zip and torch raise a dozen types
        message = "not a file that torch.load accepts with weights_only=True"
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            message += f": it asks for {found[1]}, and so could run code"
            fix = "save its tensors alone, as a state dict: torch.save(model.state_dict(), 'weights.pt')"
        raise InputError(message, where=str(path), fix=fix) from None


def plain_tensors(found: Any, where: str) -> State:
    """Return a state dict; InputError for anything but names and dense CPU tensors with numbers of their own."""
    named = isinstance(found, Mapping) and all(isinstance(name, str) for name in found)
    if not named or not all(_is_plain(tensor) for tensor in found.values()):
        message = "not a state dict, in which each name has a tensor"
        raise InputError(message, where=where, fix="save one: torch.save(model.state_dict(), 'weights.pt')")
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found.values()}
    if sum(tensor.nbytes for tensor in found.values()) > 2 * sum(stored.values()):  # tied weights count twice
        message = "tensors that repeat the same few numbers"  # copied, they could exhaust the memory
        raise InputError(message, where=where, fix="save contiguous tensors")
    return dict(found)


def _is_plain(tensor: Any) -> bool:
    is_dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
    return is_dense and tensor.device.type == "cpu"
