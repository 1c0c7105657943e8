"""Reads the file that another run wrote with `--output`; whatever does not fit is an error with its place."""

from __future__ import annotations

import json
import math
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gptkit.errors import InputError
from gptkit.evaluate.results import SCHEMA, EvaluatedRun, Scored
from gptkit.scoring.corpus_bleu import BLEU_COLUMNS
from gptkit.scoring.measures import MEASURES, value_of
from gptkit.scoring.protocols import Column, Items
from gptkit.system.json_files import json_name, json_object
from gptkit.system.reading import translate_read_errors

MAX_BYTES = 1 << 30
LARGEST = 1e15  # squares of it and sums of those are still finite
RANGES = {
    **dict.fromkeys(("correct", "confidence", "exact_match", "answer_f1"), (0.0, 1.0)),
    **dict.fromkeys(("rouge1", "rouge2", "rougeL", "rouge"), (0.0, 1.0)),
    **dict.fromkeys(("tokens", "words", "bytes", "characters", *BLEU_COLUMNS), (0.0, LARGEST)),
    "nll": (-1e-3, LARGEST),  # a sum of logarithms of probabilities, but for rounding
}
_FIX = "write the baseline with `gptkit eval --output FILE`"
_Kind = TypeVar("_Kind")


def read_baseline(path: Path) -> EvaluatedRun:
    """Return the run of an `--output` file; InputError, with file and key, for anything else."""
    where = f"--baseline {path}"
    root = json_object(_read_text(path, where), where, _FIX)
    schema = root.get("schema")
    if schema != SCHEMA:
        found = f"schema {schema[:60]!r}" if isinstance(schema, str) else "no schema"
        raise InputError(f"{found}, where {SCHEMA} is needed", where=where, fix=_FIX)
    results = _field(root, "results", dict, where)
    items = _field(root, "items", dict, where, default={})
    for key in items:
        if key not in results:
            raise InputError(f"items of {key[:80]!r} without results", where=f"{where}: items", fix=_FIX)
    return EvaluatedRun(
        _field(root, "model", str, where, default=""),
        _field(root, "model_sha256", str, where, default=None),
        _field(root, "tokenizer_sha256", str, where, default=None),
        {key: _scored(key, results, items, where) for key in sorted(results)},
    )


def _read_text(path: Path, where: str) -> str:
    """Return a file's text; InputError where it cannot be read, is none, or is larger than a gigabyte."""
    with translate_read_errors(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("not a regular file", where=where, fix=_FIX)
        if path.stat().st_size > MAX_BYTES:
            raise InputError("a baseline of over 1 GB", where=where, fix=_FIX)
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8", where=where, fix=_FIX) from None


def _scored(key: str, results: Mapping[str, Any], items: Mapping[str, Any], where: str) -> Scored:
    place = f"{where}: results.{key[:80]}"
    result = _field(results, key, dict, place)
    n = _field(result, "n", int, place)
    metrics = _field(result, "metrics", dict, place)
    for name in metrics:
        _field(metrics, name, dict, f"{place}.metrics")
    own = _items(_field(items, key, dict, where), n, f"{where}: items.{key[:80]}") if key in items else None
    if own is not None:
        _require_agreement(metrics, own, f"{place}.metrics")
    return Scored(
        n,
        _field(result, "data_sha256", str, place),
        _field(result, "settings", dict, place, default={}),
        _field(result, "per_token", bool, place, default=False),
        metrics,
        own,
    )


def _require_agreement(metrics: Mapping[str, Any], items: Items, place: str) -> None:
    """Refuse figures that do not follow from the items that they are said to be of."""
    for name, entry in metrics.items():
        measure = MEASURES.get(name)
        if measure is None or not set(measure.statistic.columns) <= set(items.columns):
            continue
        if _field(entry, "higher_is_better", bool, f"{place}.{name}") != measure.higher_is_better:
            message = f"{name} is {'better' if measure.higher_is_better else 'worse'} when it is higher"
            raise InputError(message, where=f"{place}.{name}", fix=_FIX)
        said, found = entry.get("value"), value_of(measure, items.columns)
        if isinstance(said, bool) or not isinstance(said, int | float) or not math.isclose(said, found, rel_tol=1e-6):
            message = f"the value {said!r:.40} does not follow from its items, which give {found:.6g}"
            raise InputError(message, where=f"{place}.{name}", fix=_FIX)


def _items(entry: Mapping[str, Any], n: int, place: str) -> Items:
    ids = _field(entry, "ids", list, place)
    if not all(isinstance(one, str) for one in ids):
        raise InputError("an id is not a string", where=f"{place}.ids", fix=_FIX)
    if len(set(ids)) < len(ids):
        [(twice, _)] = Counter(ids).most_common(1)
        raise InputError(f"the id {twice[:60]!r} is there twice", where=f"{place}.ids", fix=_FIX)
    if len(ids) != n:
        raise InputError(f"{len(ids)} ids, where n is {n}", where=f"{place}.ids", fix=_FIX)
    columns = _field(entry, "columns", dict, place)
    return Items(tuple(ids), {name: _column(columns, name, n, f"{place}.columns") for name in sorted(columns)})


def _column(columns: Mapping[str, Any], name: str, n: int, place: str) -> Column:
    """Return a column of numbers that its name may hold; InputError for anything else."""
    values, where = _field(columns, name, list, place), f"{place}.{name[:60]}"
    if len(values) != n:
        raise InputError(f"{len(values)} values for {n} items", where=where, fix=_FIX)
    low, high = RANGES.get(name, (-LARGEST, LARGEST))
    for index, value in enumerate(values):
        # Not a number fails the comparison; a boolean is one in Python alone.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            message = f"item {index}: {_short(value)} is not a number from {low:g} to {high:g}"
            raise InputError(message, where=where, fix=_FIX)
        if name == "correct" and value not in (0, 1):
            raise InputError(f"item {index}: {_short(value)} is not 0 or 1", where=where, fix=_FIX)
    return np.array(values, np.float64)


def _short(value: Any) -> str:
    return json.dumps(value, default=str)[:40] if not isinstance(value, int) or abs(value) < LARGEST else "a huge one"


_MISSING: Any = object()


def _field(entry: Mapping[str, Any], key: str, kind: type[_Kind], place: str, default: Any = _MISSING) -> Any:
    """Return a value of a JSON object; InputError when it is of another kind, or missing without a default."""
    value = entry.get(key, default)
    if value is _MISSING:
        raise InputError(f"no {key[:80]!r}", where=place, fix=_FIX)
    if value is default or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    wanted = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a whole number"}[kind]
    raise InputError(f"{key[:80]!r} is a JSON {json_name(value)}, where {wanted} is needed", where=place, fix=_FIX)
