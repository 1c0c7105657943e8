"""Evaluation results with the scores of every item: the file that `--output` writes and `--baseline` reads.

    {"schema": "gptkit.eval/1", "model": ..., "model_sha256": ..., "tokenizer_sha256": ...,
     "results": {"TASK/PROTOCOL": {"n", "data_sha256", "settings", "per_token", "groups", "cut", "impossible",
                                   "metrics": {NAME: {"value", "stderr", "higher_is_better", "reason"}}}},
     "items": {"TASK/PROTOCOL": {"ids": [...], "columns": {NAME: [...]}}}}

The same run gives the same bytes: keys are in the order of --json, numbers have the fewest digits that read back
exactly, none is NaN.
A measure that is not defined for its items has null for value and stderr, and only it has a "reason".
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.measures import MEASURES, ROUGE, breakdown, measure, value_of
from gptkit.scoring.protocols import Column, Items, Protocol
from gptkit.scoring.resampling import BLEU_COLUMNS
from gptkit.system.reading import json_name, json_object, read_text
from gptkit.system.writing import json_text

SCHEMA = "gptkit.eval/1"
VERSION = "protocol_version"  # a key of the settings; version 1 is not written
MAX_BYTES = 1 << 30
LARGEST = 1e15  # its squares, and sums of them, are still finite
RANGES = {
    **dict.fromkeys(("correct", "confidence", "exact_match", "answer_f1"), (0.0, 1.0)),
    **dict.fromkeys((*ROUGE, "unicode_answer_f1", *(f"unicode_{name}" for name in ROUGE)), (0.0, 1.0)),
    **dict.fromkeys(("tokens", "words", "unicode_words", "bytes", "characters", *BLEU_COLUMNS), (0.0, LARGEST)),
    "nll": (-1e-3, LARGEST),  # negative only by rounding
}
_EXACT = 2.0**53  # floats represent every integer up to this
_FIX = "write the baseline with `gptkit eval --output baseline.json`"
_MISSING: Any = object()
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """The result of a task by one protocol.

    `metrics` come from measures.measure, `groups` from measures.breakdown, `cut` and `impossible` from Items.
    `settings` are the properties of the model that the numbers depend on. `items` is None if they were left out.
    """

    n: int
    data_sha256: str
    settings: Mapping[str, Any]
    per_token: bool
    metrics: Mapping[str, Mapping[str, Any]]
    items: Items | None
    groups: Mapping[str, Any] = field(default_factory=dict)
    cut: int = 0
    impossible: int = 0


@dataclass(frozen=True, eq=False)
class EvalResults:
    """A model's results by "task/protocol"; a hash is None if unknown."""

    model: str
    model_sha256: str | None
    tokenizer_sha256: str | None
    results: Mapping[str, ProtocolResult]

    def as_json(self, *, items: bool = False) -> dict[str, Any]:
        """Return the object that `--json` prints or, with `items`, the one that `--output` writes."""
        written: dict[str, Any] = {
            "schema": SCHEMA,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "results": {
                key: {name: value for name, value in vars(result).items() if name != "items"}
                for key, result in self.results.items()
            },
        }
        if items:
            written["items"] = {}
            for key, result in self.results.items():
                if result.items:
                    columns = {name: [*map(_number, column.tolist())] for name, column in result.items.columns.items()}
                    written["items"][key] = {"ids": list(result.items.ids), "columns": columns}
        return written


def result_of(
    protocol: Protocol,
    items: Items,
    data_sha256: str,
    settings: Mapping[str, Any],
    values: Mapping[str, float] = {},
) -> ProtocolResult:
    """Return the measures of a protocol's items; `values` are those already known.

    InputError, with the measure's name, if the model's own figures are not finite.
    """
    return ProtocolResult(
        len(items.ids),
        data_sha256,
        settings,
        protocol.per_token,
        measure(protocol.measures, items, values),
        items,
        breakdown(protocol.measures, items),
        items.cut,
        items.impossible,
    )


def eval_text(run: EvalResults, more: Mapping[str, Any] | None = None) -> str:
    """Return the text of the `--output` file, one key per line; `more` are further keys, such as the comparison."""
    written = {**run.as_json(items=True), **(more or {})}
    dumps = functools.partial(json_text, separators=(",", ":"))
    lines = [f"{dumps(key)}: {dumps(value)}" for key, value in written.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def read_baseline(path: Path) -> EvalResults:
    """Read an `--output` file; InputError, with file and key, for anything else."""
    where = f"--baseline {path}"
    root = json_object(read_text(path, "the baseline", most=MAX_BYTES, fix=_FIX), where, _FIX)
    schema = root.get("schema")
    if schema != SCHEMA:
        found = f"schema {schema[:60]!r}" if isinstance(schema, str) else "no schema"
        raise InputError(f"{found}, expected {SCHEMA}", where=where, fix=_FIX)
    results = _field(root, "results", dict, where)
    items = _field(root, "items", dict, where, default={})
    for key in items:
        if key not in results:
            raise InputError(f"items of {key[:80]!r} without results", where=f"{where}: items", fix=_FIX)
    return EvalResults(
        _field(root, "model", str, where, default=""),
        _field(root, "model_sha256", str, where, default=None),
        _field(root, "tokenizer_sha256", str, where, default=None),
        {key: _read_result(key, results, items, where) for key in sorted(results)},
    )


def _read_result(key: str, results: Mapping[str, Any], items: Mapping[str, Any], where: str) -> ProtocolResult:
    place = f"{where}: results.{key[:80]}"
    result = _field(results, key, dict, place)
    n = _field(result, "n", int, place)
    metrics = _field(result, "metrics", dict, place)
    for name in metrics:
        _field(metrics, name, dict, f"{place}.metrics")
    own = _read_items(_field(items, key, dict, where), n, f"{where}: items.{key[:80]}") if key in items else None
    if own is not None:
        _require_agreement(metrics, own, f"{place}.metrics")
    return ProtocolResult(
        n,
        _field(result, "data_sha256", str, place),
        _field(result, "settings", dict, place, default={}),
        _field(result, "per_token", bool, place, default=False),
        metrics,
        own,
    )


def _require_agreement(metrics: Mapping[str, Any], items: Items, place: str) -> None:
    """Refuse figures that do not follow from their own items."""
    for name, entry in metrics.items():
        measure = MEASURES.get(name)
        if measure is None or not set(measure.statistic.columns) <= set(items.columns):
            continue
        if _field(entry, "higher_is_better", bool, f"{place}.{name}") != measure.higher_is_better:
            message = f"higher_is_better must be {str(measure.higher_is_better).lower()} for {name}"
            raise InputError(message, where=f"{place}.{name}", fix=_FIX)
        value, found = entry.get("value"), value_of(measure, items.columns)
        reason = _field(entry, "reason", str, f"{place}.{name}", default="")
        if (value is None and reason) or not math.isfinite(found):  # older versions called some of these 0
            continue
        if not (_is_number(value) and math.isclose(value, found, rel_tol=1e-6)):
            message = f"the value {value!r:.40} does not match its items, which give {found:.6g}"
            raise InputError(message, where=f"{place}.{name}", fix=_FIX)


def _read_items(entry: Mapping[str, Any], n: int, place: str) -> Items:
    ids = _field(entry, "ids", list, place)
    if not all(isinstance(name, str) for name in ids):
        raise InputError("an id is not a string", where=f"{place}.ids", fix=_FIX)
    if len(set(ids)) < len(ids):
        [(twice, _)] = Counter(ids).most_common(1)
        raise InputError(f"the id {twice[:60]!r} appears twice", where=f"{place}.ids", fix=_FIX)
    if len(ids) != n:
        raise InputError(f"{len(ids)} ids, but n is {n}", where=f"{place}.ids", fix=_FIX)
    columns = _field(entry, "columns", dict, place)
    return Items(tuple(ids), {name: _column(columns, name, n, f"{place}.columns") for name in sorted(columns)})


def _column(columns: Mapping[str, Any], name: str, n: int, place: str) -> Column:
    """Return a column of numbers in the range of its measure; InputError for anything else."""
    values, where = _field(columns, name, list, place), f"{place}.{name[:60]}"
    if len(values) != n:
        raise InputError(f"{len(values)} values for {n} items", where=where, fix=_FIX)
    low, high = RANGES.get(name, (-LARGEST, LARGEST))
    for index, value in enumerate(values):
        if not (_is_number(value) and low <= value <= high):  # NaN fails the comparison
            message = f"item {index}: {json_text(value, allow_nan=True)[:40]} is not a number from {low:g} to {high:g}"
            raise InputError(message, where=where, fix=_FIX)
        if name == "correct" and value not in (0, 1):
            raise InputError(f"item {index}: {value} is not 0 or 1", where=where, fix=_FIX)
    return np.array(values, np.float64)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _field(entry: Mapping[str, Any], key: str, kind: type[_Kind], place: str, default: Any = _MISSING) -> Any:
    """Return a value of a JSON object; InputError if it has another type, or is missing without a default."""
    value = entry.get(key, default)
    if value is _MISSING:
        raise InputError(f"no {key[:80]!r}", where=place, fix=_FIX)
    if value is default or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    wanted = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a whole number"}[kind]
    raise InputError(f"{key[:80]!r} is a JSON {json_name(value)}, not {wanted}", where=place, fix=_FIX)
