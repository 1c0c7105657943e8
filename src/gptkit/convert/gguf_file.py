"""The container of a GGUF file: its metadata, and where each tensor lies.

The package `gguf` has a reader, but one that believes a header: it reads an array of 2**62 numbers until the memory is
full, and accepts big-endian files and strings beyond the file's end. Here every count and size is compared with what
the file has left before anything is read.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptkit.errors import InputError
from gptkit.system.reading import require_regular, translate_read_errors

MAGIC, VERSIONS = b"GGUF", (2, 3)
LARGEST_HEADER = 1 << 24  # bytes; that of a model with 50,000 tokens takes 2 MB
DAMAGED = "fetch or write the file again"
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's ggml type, its shape in numpy's order, and its bytes in the file."""

    kind: int
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(path: Path, block_sizes: dict[int, tuple[int, int]]) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """Return the metadata and the tensors of a GGUF file; `block_sizes` has (numbers, bytes) of a block by ggml type.

    InputError for a file that is damaged, truncated or not what it says it is. Every tensor lies within the file, and
    together they are not larger than it.
    """
    file_size = require_regular(path, DAMAGED)
    with translate_read_errors(path), open(path, "rb") as file:
        header = _Header(file.read(LARGEST_HEADER), str(path))
    if header.take(4) != MAGIC:
        raise header.damaged("not a GGUF file")
    version = header.number("I")
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise header.damaged(f"GGUF version {version}; gptkit reads versions {known}, little-endian")
    tensor_count, pair_count = header.number("Q"), header.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = header.string()
        if key in metadata:
            raise header.damaged(f"duplicate key {key[:60]!r}")
        metadata[key] = header.value(header.number("I"))
    rows = {}
    for _ in range(tensor_count):
        name = header.string()
        if name in rows:
            raise header.damaged(f"duplicate tensor {name[:60]!r}")
        rows[name] = _tensor_row(header, name, block_sizes)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
        raise header.damaged(f"general.alignment is {alignment!r}, not a power of two from 8 on")
    start = -(-header.place // alignment) * alignment
    left = file_size - start
    for name, row in rows.items():
        if row.offset % alignment or row.offset + row.size > file_size - start:
            raise header.damaged(f"tensor {name[:60]} does not lie within the file")
        left -= row.size
        if left < 0:
            raise header.damaged(f"tensor {name[:60]} overlaps another")
    return metadata, {
        name: StoredTensor(row.kind, row.shape, start + row.offset, row.size) for name, row in rows.items()
    }


def _tensor_row(header: _Header, name: str, block_sizes: dict[int, tuple[int, int]]) -> StoredTensor:
    """Return a tensor with the offset as written, from the start of the data."""
    dimensions = header.number("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise header.damaged(f"tensor {name[:60]} has {dimensions:,} dimensions")
    sizes = [header.number("Q") for _ in range(dimensions)]
    kind, offset = header.number("I"), header.number("Q")
    if kind not in block_sizes:
        message = f"tensor {name[:60]} has an unknown ggml type, {kind}"
        raise InputError(message, where=header.where, fix=DAMAGED)
    numbers, size = block_sizes[kind]
    if 0 in sizes or sizes[0] % numbers:
        raise header.damaged(f"tensor {name[:60]} has rows of {sizes[0]:,} numbers")
    return StoredTensor(kind, tuple(reversed(sizes)), offset, math.prod(sizes) // numbers * size)


class _Header:
    """The first bytes of a file, read from front to back, never further than they go."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.place = data, where, 0

    def damaged(self, message: str) -> InputError:
        return InputError(message, where=self.where, fix=DAMAGED)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.place:
            raise self.damaged(f"truncated, or damaged: {size:,} bytes from byte {self.place:,} on are not there")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        raw = self.take(self.number("Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.damaged(f"the string before byte {self.place:,} is not UTF-8") from None

    def value(self, kind: int) -> Any:
        """Return a number, a boolean or a string, or a list of either."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise self.damaged(f"a value of unknown type {kind}")
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            dtype = np.dtype(f"<{SCALARS[kind]}")
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        if kind != STRING:
            raise self.damaged(f"an array of type {kind}")
        return [self.string() for _ in range(count)]
