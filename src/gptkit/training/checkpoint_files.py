"""What a checkpoint is made of: a directory that is whole or not there, and tensors in safetensors files.

The directory is filled, synced, and committed by MANIFEST.json, which is written last. The tensors are written chunk by
chunk, so that hashing and syncing see every byte once and a 124M model with its optimizer never lies in memory twice.
The format of their files is 8 bytes of header length, a JSON header (name -> dtype, shape, offsets) and the tensors'
bytes one after another.
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

DISCARDED = "removed-"  # prefixes what is being removed
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
    """Make an empty directory where nothing is committed yet."""
    if is_committed(path):
        raise GptkitError("a committed checkpoint is never written again", where=str(path))
    if not path.parent.exists():
        files.make_directory(path.parent)
        files.sync_directory(path.parent.parent)
    if path.exists():
        files.remove_directory(path)
    files.make_directory(path)


def commit(path: Path, step: int, records: list[FileRecord], rows: FileRecord | None = None) -> None:
    """Commit a directory whose files are written and synced; `rows` are those of the run by then."""
    files.sync_directory(path)
    manifest = render_manifest(step, records, rows)
    files.write_atomically(path / MANIFEST, manifest)
    files.sync_directory(path.parent)
    if (path / MANIFEST).read_text() != manifest:
        raise InputError(f"{MANIFEST} reads back differently", where=str(path), fix="check the disk")


def remove_leftovers(path: Path) -> None:
    """Free the space of a save that failed, if the disk still lets us."""
    if path.exists() and not is_committed(path):
        with contextlib.suppress(OSError):
            files.remove_directory(path)


def discard(path: Path) -> None:
    """Remove a committed directory; a removal cut off leaves nothing that looks like one."""
    removed = path.with_name(DISCARDED + path.name)
    files.rename(path, removed)
    files.remove_directory(removed)


def remove_discarded(directory: Path) -> None:
    """Finish removals that were cut off."""
    for leftover in directory.glob(f"{DISCARDED}*"):
        files.remove_directory(leftover)


def render_manifest(step: int, records: list[FileRecord], rows: FileRecord | None = None) -> str:
    """Return the manifest's only valid text for these files, and for the run's rows by then."""
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
    """Return how metrics.jsonl differs from what it was when a verified checkpoint was saved, or None."""
    record = json.loads((path / MANIFEST).read_text())["rows"]
    if record is None:
        return None
    rows = rows_beside(path)
    if not rows.is_file():
        return f"{rows} is missing"
    if record_of(rows, size=record["size"]) == FileRecord(**record):
        return None
    return f"{rows} is not what it was at {path.name}"


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
