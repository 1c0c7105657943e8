"""Read TensorFlow's checkpoints (version 2) without TensorFlow: an index of tensors, and shards of their raw numbers.

    PREFIX.index                   a sorted table in LevelDB's format: footer -> index block -> data blocks -> entries
    PREFIX.data-00000-of-00002     what the entries point into

The first entry, under an empty key, is a BundleHeaderProto; each other is the BundleEntryProto of the tensor that its
key names (tensorflow/core/protobuf/tensor_bundle.proto; LevelDB's doc/table_format.md). No library but
TensorFlow reads them today, and gptkit does not depend on that.
"""

from __future__ import annotations

import functools
import math
import mmap
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gptkit.errors import InputError
from gptkit.model_files import LARGEST_HEADER
from gptkit.system.reading import require_regular, translate_read_errors

DTYPES = {1: torch.float32, 14: torch.bfloat16, 19: torch.float16}  # by their number in TensorFlow's DataType
MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER, TRAILER = 48, 5  # bytes: of a table; after a block, its compression and the checksum of both
PLAIN, SNAPPY = 0, 1
LONGEST_NAME, MOST_DIMENSIONS = 1000, 8
AGAIN = "copy the whole directory again"


class Entry(NamedTuple):
    """Where a tensor's numbers lie; the order of the fields is that of the numbers' places in the files."""

    shard: int
    offset: int
    size: int
    dtype: int
    shape: tuple[int, ...]


def read_bundle(prefix: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the tensors with `wanted` names, memory-mapped and not yet read.

    InputError for files that are missing or damaged, or lie about sizes: as no two tensors share a byte, all of them
    are never larger than the files.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    if require_regular(index, AGAIN, missing=AGAIN) > LARGEST_HEADER:
        raise InputError(f"an index of over {LARGEST_HEADER:,} bytes", where=str(index), fix=AGAIN)
    try:
        (key, header), *rest = table(index.read_bytes())
        numbers, _ = message(header)
        if key or numbers[2]:
            raise ValueError("no header, or numbers from a big-endian machine")
        named = {key.decode(): value for key, value in rest}  # UnicodeDecodeError is a ValueError
        entries = {name: entry_of(name, value) for name, value in named.items() if wanted(name)}
        shard, end = -1, 0
        for entry in sorted(entries.values()):
            if entry.shard == shard and entry.offset < end:
                raise ValueError("tensors overlap")
            shard, end = entry.shard, entry.offset + entry.size
        names = {place.shard: f"{prefix.name}.data-{place.shard:05}-of-{numbers[1]:05}" for place in entries.values()}
        shards = {number: mapped(prefix.with_name(name)) for number, name in names.items()}
        return {name: tensor_in(shards[entry.shard], entry, name) for name, entry in entries.items()}
    except ValueError as error:
        raise InputError(f"damaged: {error}", where=str(index), fix=AGAIN) from None


def entry_of(name: str, value: bytes) -> Entry:
    numbers, parts = message(value)
    dims = message(b"".join(parts[2]))[1][2]  # [(1, size), (2, name)] each
    shape = tuple(message(dim)[0][1] for dim in dims)
    if numbers[1] not in DTYPES or parts[7]:
        raise ValueError(f"{name} is stored in slices, or not as float32, float16 or bfloat16")
    if len(shape) > MOST_DIMENSIONS or math.prod(shape) * DTYPES[numbers[1]].itemsize != numbers[5] or not numbers[5]:
        raise ValueError(f"{name} has {numbers[5]:,} bytes, which do not fit its shape {shape[:MOST_DIMENSIONS]}")
    return Entry(numbers[3], numbers[4], numbers[5], numbers[1], shape)


def mapped(path: Path) -> mmap.mmap:
    require_regular(path, AGAIN, missing=AGAIN)
    with translate_read_errors(path, fix=AGAIN), path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch warns of a buffer that it cannot write to


def tensor_in(shard: mmap.mmap, entry: Entry, name: str) -> Tensor:
    if entry.offset + entry.size > len(shard):
        raise ValueError(f"{name} lies beyond the end of its shard")
    count = math.prod(entry.shape)
    return torch.frombuffer(shard, dtype=DTYPES[entry.dtype], count=count, offset=entry.offset).view(entry.shape)


# --- tables and protocol buffers ---


class Reader:
    """Reads bytes from the front; ValueError at their end."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.place = raw, 0

    def take(self, count: int) -> bytes:
        taken = self.raw[self.place : self.place + count]
        self.place += count
        if len(taken) < count:
            raise ValueError("bytes are missing")
        return taken

    def varint(self) -> int:
        """Read a number of at most 64 bits: 7 in each byte, the lowest first; the last byte's highest bit is 0."""
        number = 0
        for shift in range(0, 64, 7):
            (byte,) = self.take(1)
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number without an end")


def message(raw: bytes) -> tuple[defaultdict[int, int], defaultdict[int, list[bytes]]]:
    """Return a protocol buffer's fields by their numbers: those that are varints (default 0), and the others."""
    reader, numbers, parts = Reader(raw), defaultdict[int, int](int), defaultdict[int, list[bytes]](list)
    while reader.place < len(raw):
        field, kind = divmod(reader.varint(), 8)
        if kind == 0:
            numbers[field] = reader.varint()
        else:
            parts[field].append(reader.take({1: 8, 5: 4}.get(kind) or reader.varint()))
    return numbers, parts


def table(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) in ascending order of keys, as blocks lie: so no index makes one be read twice."""
    if len(raw) < FOOTER or not raw.endswith(MAGIC):
        raise ValueError("not the index of a TensorFlow checkpoint of version 2")
    footer = Reader(raw[-FOOTER:])
    _, _, start, size = (footer.varint() for _ in range(4))  # of the metaindex, which is empty, and the index block
    end, last = 0, None
    for _, handle in block(raw, start, size):
        reader = Reader(handle)
        start, size = reader.varint(), reader.varint()
        if start < end:
            raise ValueError("blocks out of order")
        end = start + size
        for key, value in block(raw, start, size):
            if last is not None and key <= last:
                raise ValueError("names out of order")
            last = key
            yield key, value


def block(raw: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield a block's (key, value); of a key, only what differs from the one before is stored."""
    whole = raw[start : start + size + TRAILER]
    if len(whole) < size + TRAILER or masked_crc32c(whole[:-4]) != int.from_bytes(whole[-4:], "little"):
        raise ValueError("a block of the index differs from its checksum")
    content = unpacked(whole[:size], whole[size])
    restarts = 4 * (1 + int.from_bytes(content[-4:], "little"))  # bytes at the end, for binary search
    reader, key = Reader(content[: max(0, len(content) - restarts)]), b""
    while reader.place < len(reader.raw):
        shared, new, length = reader.varint(), reader.varint(), reader.varint()
        if shared + new > LONGEST_NAME:
            raise ValueError(f"a name of over {LONGEST_NAME:,} bytes")
        key = key[:shared] + reader.take(new)
        yield key, reader.take(length)


def unpacked(content: bytes, compression: int) -> bytes:
    if compression == PLAIN:
        return content
    size = Reader(content).varint()
    if compression != SNAPPY or size > LARGEST_HEADER:
        raise ValueError("a block of an unknown compression, or too large")
    import pyarrow as pa

    try:
        found: bytes = pa.Codec("snappy").decompress(content, size, asbytes=True)
    except OSError as error:
        raise ValueError(error) from None
    return found


def masked_crc32c(raw: bytes) -> int:
    """Return LevelDB's checksum: CRC-32C, rotated and with a constant added."""
    rest = 0xFFFFFFFF
    for byte in raw:
        rest = crc32c_table()[(rest ^ byte) & 255] ^ (rest >> 8)
    rest ^= 0xFFFFFFFF
    return ((rest >> 15 | rest << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def crc32c_table() -> list[int]:
    rests = list(range(256))
    for _ in range(8):
        rests = [(rest >> 1) ^ (0x82F63B78 if rest & 1 else 0) for rest in rests]
    return rests
