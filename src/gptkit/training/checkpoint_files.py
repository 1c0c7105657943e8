"""The parts of a checkpoint: directories committed atomically by a manifest, and tensors in safetensors files.

A directory is filled, synced, and committed by MANIFEST.json, which is written last. Tensors are written chunk by
chunk, so that each byte is hashed as it is written and a 124M model with its optimizer is never in memory twice. A
safetensors file consists of 8 bytes of header length, a JSON header (name -> dtype, shape, offsets) and the bytes of
the tensors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

import gptkit
from gptkit.errors import GptkitError, InputError
from gptkit.system import files
from gptkit.system.files import Chunk
from gptkit.system.run_layout import MANIFEST, METRICS, SCHEMA, FileRecord, is_committed, record_of, with_digest

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


def begin(path: Path) -> None:
    """Create an empty directory for a checkpoint or snapshot that is not committed yet."""
    if is_committed(path):
        raise GptkitError("refusing to overwrite a committed checkpoint", where=str(path))
    files.make_directories(path.parent)
    if path.exists():
        files.remove_directory(path)
    files.make_directory(path)


def commit(path: Path, step: int, records: list[FileRecord], rows: FileRecord | None = None) -> None:
    """Commit a directory whose files are written and synced; `rows` identifies the run's metrics.jsonl so far."""
    files.sync_directory(path)
    manifest = render_manifest(step, records, rows)
    files.write_atomically(path / MANIFEST, manifest)
    files.sync_directory(path.parent)
    if (path / MANIFEST).read_text() != manifest:
        raise InputError(f"{MANIFEST} does not read back as it was written", where=str(path), fix="check the disk")


def remove_leftovers(path: Path) -> None:
    """Free the space of a failed save, if the disk still allows it."""
    if path.exists() and not is_committed(path):
        with contextlib.suppress(OSError):
            files.remove_directory(path)


def render_manifest(step: int, records: list[FileRecord], rows: FileRecord | None = None) -> str:
    """Return the only valid text of the manifest for these files and rows."""
    return with_digest(
        {
            "schema": SCHEMA,
            "step": step,
            "versions": {"gptkit": gptkit.__version__, "torch": str(torch.__version__)},
            "files": [dataclasses.asdict(record) for record in records],
            "rows": None if rows is None else dataclasses.asdict(rows),
        }
    )


def rows_beside(path: Path) -> Path:
    """Return the metrics.jsonl of the run that a checkpoint belongs to."""
    return path.parent.parent / METRICS


def rows_defect(path: Path) -> str | None:
    """Return how metrics.jsonl has changed since a verified checkpoint was saved, or None if it has not."""
    record = json.loads((path / MANIFEST).read_text())["rows"]
    if record is None:
        return None
    rows = rows_beside(path)
    if not rows.is_file():
        return f"{rows} is missing"
    if record_of(rows, size=record["size"]) == FileRecord(**record):
        return None
    return f"{rows} has changed since {path.name}"


def safetensors_chunks(
    tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None = None, metadata: Mapping[str, str] | None = None
) -> Iterator[Chunk]:
    """Yield the bytes of a safetensors file of `tensors`, widest dtypes first so that all are aligned.

    With `dtype` each is cast, and if need be made contiguous, when its turn comes.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": {**metadata}}
    offset = 0
    for name, tensor in ordered:
        kind = dtype or tensor.dtype
        end = offset + tensor.numel() * kind.itemsize
        header[name] = {"dtype": DTYPES[kind], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, tensor in ordered:
        if tensor.numel():
            flat = tensor.detach().cpu().to(dtype or tensor.dtype).contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data


class SavedTensors:
    """Tensors whose rows are spread over safetensors files in order: the first file holds the first rows of each.

    A checkpoint that is not sharded has a single file. A scalar is in every file, with the same value.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files: list[Any] = [safe_open(path, framework="pt") for path in paths]  # the stubs lack tensors
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in self._files:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                shape = tuple(file.get_slice(name).get_shape())
                before = self.shapes.get(name)
                self.shapes[name] = shape if before is None or not shape else (before[0] + shape[0], *shape[1:])

    def read(self, name: str, rows: range | None = None) -> Tensor:
        """Return a tensor, or only these rows of it; a scalar, which has none, is returned whole."""
        holders = [file for file in self._files if name in file.keys()]  # noqa: SIM118
        shape = self.shapes[name]
        if not shape or (len(holders) == 1 and rows is None):
            return cast("Tensor", holders[0].get_tensor(name))
        rows = range(shape[0]) if rows is None else rows
        parts, first = [], 0
        for file in holders:
            piece = file.get_slice(name)
            end = first + piece.get_shape()[0]
            if first < rows.stop and rows.start < end:
                parts.append(piece[max(rows.start, first) - first : min(rows.stop, end) - first])
            first = end
        return torch.cat(parts or [holders[0].get_slice(name)[:0]])
