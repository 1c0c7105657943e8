"""`gptkit predict --output FILE`: predictions appended in the order of their inputs, so that a rerun resumes.

A line has what `--json` prints of an example, and "settings", a hash of the model. The first lines that belong to the
same inputs are done; the others are dropped and predicted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from gptkit.errors import InputError
from gptkit.report.resuming import ANOTHER, json_row, open_to_append
from gptkit.system.encodings import UTF8, decode_text
from gptkit.system.reading import json_object
from gptkit.tasks.task import FORMAT_FIELDS, Task
from gptkit.text.examples import Example


class _Done(NamedTuple):
    rows: int = 0
    end: int = 0  # in the file, in bytes
    truncated: int = 0


class PredictionsFile:
    """A context manager that locks the file; InputError if it holds other results, or those of another model."""

    def __init__(self, path: Path, settings: str) -> None:
        self.path, self._settings = path, settings
        self.done = self.truncated = self.stale = 0
        self._file = open_to_append(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.path.stat().st_size:
            self.path.unlink()  # leave no empty file behind

    def resume(self, inputs: Iterable[Mapping[str, Any]], chunk: int) -> int:
        """Find the predictions of the first inputs (fields by name), and cut off the rest; return the number of inputs.

        `done` counts the predictions, `truncated` those of truncated texts, `stale` those of other inputs. Inputs are
        predicted `chunk` at a time; one that is not complete is predicted again, since an answer's last bits depend on
        what is computed together with it.
        """
        rows = self._rows()
        kept = found = _Done()
        total = 0
        for total, fields in enumerate(inputs, start=1):
            row, end = next(rows, ({}, 0)) if found.rows == total - 1 else ({}, 0)
            if row and all(row.get(name) == text for name, text in fields.items()):
                found = _Done(total, end, found.truncated + row["truncated"])
                kept = found if total % chunk == 0 else kept
            elif row:
                self.stale = 1
        self.stale += sum(1 for _ in rows)
        kept = found if found.rows == total else kept
        self.done, self.truncated = kept.rows, kept.truncated
        self._file.truncate(kept.end)
        return total

    def append(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Write and flush predictions, so that they survive a kill of this process."""
        self._file.write(b"".join(json_row({**result, "settings": self._settings}) for result in results))
        self._file.flush()
        self.truncated += sum(result["truncated"] for result in results)

    def results(self) -> list[dict[str, Any]]:
        """Return all predictions in the file, as `--json` prints them."""
        return [{name: value for name, value in row.items() if name != "settings"} for row, _ in self._rows()]

    def _rows(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each whole line as (row, where it ends in bytes)."""
        self._file.seek(0)
        end = 0
        for number, raw in enumerate(self._file, start=1):
            if not raw.endswith(b"\n"):
                return  # half written
            where, end = f"{self.path}:{number}", end + len(raw)
            row = json_object(decode_text(raw, str(self.path), line=number, default=UTF8), where, ANOTHER)
            if not isinstance(row.get("settings"), str) or not isinstance(row.get("truncated"), bool):
                raise InputError("not a prediction of gptkit predict", where=where, fix=ANOTHER)
            if row["settings"] != self._settings:
                raise InputError("the file holds predictions of another model", where=where, fix=ANOTHER)
            yield row, end


def fields_of(task: Task, example: Example) -> dict[str, Any]:
    """Return an example's texts by the names of the format's fields."""
    texts = [text if isinstance(text, str) else [*text] for text in example.fields]
    return dict(zip(FORMAT_FIELDS[task.format], texts, strict=True))
