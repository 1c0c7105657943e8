"""Pickled weights, as torch.save writes them, read without running what a pickle asks for.

torch's own reader (weights_only) runs no code, but calls what can fill the memory from a few bytes: bytearray(2**40),
encoders of text, types of tensors. Here it gets only what rebuilds tensors and numbers. Those of numpy, which nanoGPT's
checkpoints often hold, are rebuilt here too: numpy's functions for it were not made for hostile files.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, _weights_only_unpickler
from torch._utils import _rebuild_tensor, _rebuild_tensor_v2

from gptkit.errors import InputError
from gptkit.model.loading import State
from gptkit.system.reading import require_regular, translate_read_errors

LARGEST_PICKLE = 4_000_000  # bytes, without the numbers of tensors: a thousand tensors take about a hundred thousand
LEGACY_PICKLES = 5  # of torch before 1.6, which wrote them one after the other, and the numbers behind them
LONGEST_NUMBER = 16  # bytes
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


def raw_number(text: str, encoding: str) -> bytes:
    """Return the bytes of a number, which a pickle has as text."""
    if encoding != "latin1" or len(text) > LONGEST_NUMBER:
        raise ValueError("more than the bytes of a number")
    return text.encode(encoding)


def empty_dict() -> OrderedDict[Any, Any]:
    """Return the dictionary that a pickle then fills; a copy of another one could be made many times."""
    return OrderedDict()


def parameter(data: Tensor, *_: Any) -> Tensor:
    """Return an nn.Parameter as the tensor that it is."""
    return data


CALLED: dict[str, Any] = {  # what a pickle may call, by the name that it has there
    "collections.OrderedDict": empty_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": parameter,
    "numpy.dtype": NumberType,
    "numpy.core.multiarray.scalar": number,  # numpy 1
    "numpy._core.multiarray.scalar": number,
    "_codecs.encode": raw_number,
}


@contextmanager
def narrowed() -> Iterator[None]:
    """Let torch's weights_only call nothing but CALLED, of what it allows keep only the types of numbers."""
    allowed = _weights_only_unpickler._get_allowed_globals()
    types = {name: value for name, value in allowed.items() if not callable(value)}
    with patch.dict(allowed, types | CALLED, clear=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about how the file was written
        yield


def load_pickled(path: Path, fix: str) -> Any:
    """Return what a file of torch.save holds, its tensors memory-mapped if it has the zip format of current torch.

    InputError, with `fix` if nothing better is known, for a file that is damaged or holds more than weights.
    """
    size = require_regular(path, fix)
    with translate_read_errors(path):
        path.open("rb").close()
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            require_plain_zip(path, size)
        else:
            require_short_pickles(path)
        with narrowed():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # pickle, zip and torch raise a dozen types
        message = "not a file that torch.load accepts with weights_only=True"
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            message += f": it asks for {found[1]}, which no tensor needs"
            fix = "save its tensors alone, as a state dict: torch.save(model.state_dict(), 'weights.pt')"
        raise InputError(message, where=str(path), fix=fix) from None


def require_plain_zip(path: Path, size: int) -> None:
    """Raise ValueError for parts that could fill the memory, and that torch writes none of."""
    parts = zipfile.ZipFile(path).infolist()
    if min(part.header_offset for part in parts) != 0:
        raise ValueError("something before the zip, in which another reader may find another list of parts")
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > size:
        raise ValueError("compressed, or parts that overlap")
    if any(part.filename.endswith(".pkl") and part.file_size > LARGEST_PICKLE for part in parts):
        raise ValueError("a pickle too large for names and shapes")


def require_short_pickles(path: Path) -> None:
    """Raise ValueError for a file of older versions of torch whose pickles are too large for names and shapes."""
    with path.open("rb") as file:
        operations = (operation for _ in range(LEGACY_PICKLES) for operation in pickletools.genops(file))
        if any((place or 0) > LARGEST_PICKLE for _, _, place in operations):
            raise ValueError("a pickle too large for names and shapes")


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
