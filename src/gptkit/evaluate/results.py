"""A run's results with the scores of every item: what `--output` writes, and `--baseline` reads.

    {"schema": "gptkit.eval/1", "model": ..., "model_sha256": ..., "tokenizer_sha256": ...,
     "results": {"TASK/PROTOCOL": {"n", "data_sha256", "settings", "per_token", "groups", "cut", "impossible",
                                   "metrics": {NAME: {"value", "stderr", "higher_is_better"}}}},
     "items": {"TASK/PROTOCOL": {"ids": [...], "columns": {NAME: [...]}}}}

The same run gives the same bytes: keys are sorted, numbers are the shortest that read back exactly, and none is NaN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gptkit.scoring.measures import breakdown, measure
from gptkit.scoring.protocols import Items, Protocol

SCHEMA = "gptkit.eval/1"
VERSION = "protocol_version"  # among the settings; those of version 1 do not say it
_EXACT = 2.0**53  # up to here every whole number is a float


@dataclass(frozen=True, eq=False)
class Scored:
    """A task by one protocol.

    `metrics` are those of measures.measure, `groups` those of measures.breakdown; `settings` is what of the model
    entered the number. `items` is None where they were left out. `cut` and `impossible` are those of Items.
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
class EvaluatedRun:
    """A model's scores by "task/protocol"; a hash that is not known is None."""

    model: str
    model_sha256: str | None
    tokenizer_sha256: str | None
    scores: Mapping[str, Scored]

    def as_json(self, *, items: bool = False) -> dict[str, Any]:
        """Return the object that `--json` prints, or with the items the one of the file."""
        written: dict[str, Any] = {
            "schema": SCHEMA,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "results": {key: _result(one) for key, one in self.scores.items()},
        }
        if items:
            written["items"] = {key: _items(one.items) for key, one in self.scores.items() if one.items is not None}
        return written


def scored(protocol: Protocol, items: Items, data_sha256: str, settings: Mapping[str, Any]) -> Scored:
    """Return the measures of a protocol's items; InputError, with the measure's name, where one is not finite."""
    return Scored(
        len(items.ids),
        data_sha256,
        settings,
        protocol.per_token,
        measure(protocol.measures, items),
        items,
        breakdown(protocol.measures, items),
        items.cut,
        items.impossible,
    )


def eval_text(run: EvaluatedRun, more: Mapping[str, Any] | None = None) -> str:
    """Return the text of the `--output` file, a key a line; `more` are further keys, such as the comparison."""
    written = {**run.as_json(items=True), **(more or {})}
    lines = [f"{json.dumps(key)}: {_dumps(written[key])}" for key in sorted(written)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _result(one: Scored) -> dict[str, Any]:
    return {
        "n": one.n,
        "data_sha256": one.data_sha256,
        "settings": dict(one.settings),
        "per_token": one.per_token,
        "metrics": {name: dict(entry) for name, entry in one.metrics.items()},
        "groups": dict(one.groups),
        "cut": one.cut,
        "impossible": one.impossible,
    }


def _items(items: Items) -> dict[str, Any]:
    columns = {name: [_number(value) for value in column.tolist()] for name, column in items.columns.items()}
    return {"ids": list(items.ids), "columns": columns}


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < _EXACT else value
