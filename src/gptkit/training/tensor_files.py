"""Tensors as a safetensors file, written chunk by chunk so that hashing and syncing see every byte once.

The format is 8 bytes of header length, a JSON header (name -> dtype, shape, offsets) and the tensors' bytes one after
another; a 124M model with its optimizer never lies in memory twice.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

from gptkit.system.files import Chunk

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def safetensors_chunks(tensors: Mapping[str, Tensor]) -> Iterator[Chunk]:
    """Yield the bytes of a safetensors file that holds `tensors`, widest dtypes first so that all are aligned."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, offset = {}, 0
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, tensor in ordered:
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data


class SavedTensors(Mapping[str, Tensor]):
    """The tensors of safetensors files, each of which holds some rows of every tensor: the first file the first rows.

    One file is the plain case. A scalar is in every file, and the same in each.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files: list[Any] = [safe_open(path, framework="pt") for path in paths]  # its stubs know no tensors
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in self._files:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                shape = tuple(file.get_slice(name).get_shape())
                before = self.shapes.get(name)
                self.shapes[name] = shape if before is None or not shape else (before[0] + shape[0], *shape[1:])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, name: str) -> Tensor:
        shape = self.shapes[name]
        return self.rows(name, 0, shape[0]) if shape else self.rows(name, 0, 0)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return the rows [start, stop) of a tensor; of a scalar, which has none, the value."""
        holders = [file for file in self._files if name in file.keys()]  # noqa: SIM118
        if not self.shapes[name]:
            return cast("Tensor", holders[0].get_tensor(name))
        if len(holders) == 1 and (start, stop) == (0, self.shapes[name][0]):
            return cast("Tensor", holders[0].get_tensor(name))
        parts, first = [], 0
        for file in holders:
            piece = file.get_slice(name)
            end = first + piece.get_shape()[0]
            if first < stop and start < end:
                parts.append(piece[max(start, first) - first : min(stop, end) - first])
            first = end
        return torch.cat(parts or [holders[0].get_slice(name)[:0]])
