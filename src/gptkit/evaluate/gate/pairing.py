"""Two runs over the same items: what may be compared.

Nothing is compared silently: what was asked for and has no counterpart is NothingComparable. The baseline must name
every task and protocol of the present run, with the same data and settings, and where tokens are counted the same
tokenizer. What only the baseline has is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError, NothingComparable
from gptkit.evaluate.gate.gate import Comparison, Scores
from gptkit.evaluate.results import VERSION, EvaluatedRun, Scored
from gptkit.scoring.item_statistics import Columns
from gptkit.scoring.measures import MEASURES, Measure, value_of
from gptkit.scoring.protocols import Protocol

_ANOTHER = "evaluate the baseline again the same way (gptkit eval --output FILE)"


@dataclass(frozen=True)
class Asked:
    """A task of the present run.

    `floor`, None for each measure's own, is that of the first measure of every protocol, in its unit. `minimum` bounds
    the first measure of the first protocol: from below when higher is better, else from above.
    """

    name: str
    protocols: tuple[Protocol, ...]
    floor: float | None = None
    minimum: float | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """A measure of both runs over the same items in one order: their columns, its floor in the measure's unit."""

    measure: Measure
    baseline: Columns
    present: Columns
    floor: float

    def scores(self, key: str) -> Scores:
        """Return what the gate compares; InputError where a value is not finite."""
        for name, columns in (("baseline", self.baseline), ("present run", self.present)):
            if not math.isfinite(value := value_of(self.measure, columns)):
                raise InputError(f"{key} of the {name} is {value}", fix="check its model and items")
        scores = self.measure.statistic.scores(self.baseline, self.present, self.floor)
        if scores is None:
            raise ValueError(f"{key} is reported, not gated")
        return scores

    def in_unit(self, found: Comparison) -> Comparison:
        """Return the gate's comparison in the unit of the measure."""
        before, after = value_of(self.measure, self.baseline), value_of(self.measure, self.present)
        least = found.minimum_detectable
        if least is not None:
            with np.errstate(over="ignore"):
                least = self.measure.statistic.in_unit(least, self.baseline)
            least = least if math.isfinite(least) else None
        return replace(found, baseline=before, value=after, difference=after - before, minimum_detectable=least)


def paired(present: EvaluatedRun, baseline: EvaluatedRun, asked: Sequence[Asked]) -> dict[str, Pair]:
    """Return every gated measure of what was asked, by "task/protocol.measure".

    NothingComparable, in one line that names it, where the baseline lacks one of them or was made another way;
    InputError where its items do not fit what it says of them.
    """
    pairs = {key: pair for task in asked for key, pair in _pairs(present, baseline, task)}
    if not pairs:
        raise NothingComparable("no measure is in both runs", where="--baseline", fix="evaluate a task of the baseline")
    return pairs


def require_comparable(present: EvaluatedRun, baseline: EvaluatedRun, asked: Sequence[Asked]) -> None:
    """Raise NothingComparable as `paired` would for what is known before scoring: data, settings and tokenizer."""
    for task in asked:
        _require_task(baseline, task)
        for key, protocol in ((f"{task.name}/{one.name}", one) for one in task.protocols):
            _same(key, baseline, present)
            for name in protocol.measures[: protocol.gated]:
                _require_tokenizer(f"{key}.{name}", protocol, present, baseline)


def left_out(present: EvaluatedRun, baseline: EvaluatedRun) -> Iterator[str]:
    """Yield a line for each task, or protocol of a task, that one run has and the other has not."""
    tasks = {key.split("/")[0] for key in present.scores}
    for task in sorted({key.split("/")[0] for key in baseline.scores} - tasks):
        yield f"{task} of the baseline was not evaluated"
    for key in sorted(set(baseline.scores) - set(present.scores)):
        if key.split("/")[0] in tasks:
            yield f"{key} of the baseline was not evaluated"
    for key in sorted(set(present.scores) - set(baseline.scores)):
        yield f"{key} is not in the baseline, and was not compared"


def _pairs(present: EvaluatedRun, baseline: EvaluatedRun, task: Asked) -> Iterator[tuple[str, Pair]]:
    _require_task(baseline, task)
    for protocol in task.protocols:
        key = f"{task.name}/{protocol.name}"
        before, after = _same(key, baseline, present)
        order = _order(key, before, after)
        assert after.items is not None
        for index, name in enumerate(protocol.measures[: protocol.gated]):
            full = f"{key}.{name}"
            measure = MEASURES[name]
            _require_tokenizer(full, protocol, present, baseline)
            columns = _columns(full, measure, before, order)
            _require_same_questions(full, measure, columns, after.items.columns)
            floor = task.floor if index == 0 and task.floor is not None else None
            if floor is None:
                floor = measure.floor_below(value_of(measure, columns))
            yield full, Pair(measure, columns, after.items.columns, floor)


def _same(key: str, baseline: EvaluatedRun, present: EvaluatedRun) -> tuple[Scored, Scored]:
    """Return both runs' scores of one protocol, over the same data and with the same settings."""
    before, after = baseline.scores.get(key), present.scores[key]
    if before is None:
        raise NothingComparable(f"the baseline has no {key}", where="--baseline", fix=_ANOTHER)
    if before.data_sha256 != after.data_sha256:
        shas = f"{before.data_sha256[:12]} and {after.data_sha256[:12]}"
        raise NothingComparable(f"{key}: the baseline is of other data ({shas})", where="--baseline", fix=_ANOTHER)
    for name in sorted({*before.settings, *after.settings}):
        old, new = (one.settings.get(name, 1 if name == VERSION else None) for one in (before, after))
        if old != new:
            message = f"{key}: {name} is {new!r:.60}, in the baseline {old!r:.60}"
            raise NothingComparable(message, where="--baseline", fix=_ANOTHER)
    if before.items is None:
        message = f"{key}: the baseline has no items, and paired tests need them"
        raise NothingComparable(message, where="--baseline", fix="name the file that --output wrote")
    return before, after


def _order(key: str, before: Scored, after: Scored) -> NDArray[np.int64]:
    """Return the places (item,) of the present items among the baseline's."""
    assert before.items is not None
    assert after.items is not None
    places = {name: place for place, name in enumerate(before.items.ids)}
    missing = [name for name in after.items.ids if name not in places]
    if missing or len(places) != len(after.items.ids):
        name = missing[0] if missing else sorted(set(places) - set(after.items.ids))[0]
        message = f"{key}: the data are the same, but item {name[:60]!r} is in one run alone"
        raise InputError(message, where="--baseline", fix=_ANOTHER)
    return np.array([places[name] for name in after.items.ids], np.int64)


def _columns(full: str, measure: Measure, before: Scored, order: NDArray[np.int64]) -> Columns:
    assert before.items is not None
    for name in measure.statistic.columns:
        if name not in before.items.columns:
            raise NothingComparable(f"{full}: the baseline's items have no {name!r}", where="--baseline", fix=_ANOTHER)
    return {name: before.items.columns[name][order] for name in measure.statistic.columns}


def _require_same_questions(full: str, measure: Measure, before: Columns, after: Columns) -> None:
    for name in measure.statistic.asked:
        if not np.array_equal(before[name], after[name]):
            message = f"{full}: the items' {name!r} are others than in the baseline"
            raise NothingComparable(message, where="--baseline", fix=_ANOTHER)


def _require_task(baseline: EvaluatedRun, task: Asked) -> None:
    if not any(key.startswith(f"{task.name}/") for key in baseline.scores):
        raise NothingComparable(f"the baseline has no {task.name}", where="--baseline", fix=_ANOTHER)


def _require_tokenizer(full: str, protocol: Protocol, present: EvaluatedRun, baseline: EvaluatedRun) -> None:
    """Refuse to compare "task/protocol.measure" where it counts the tokens of two tokenizers."""
    is_one = present.tokenizer_sha256 is not None and present.tokenizer_sha256 == baseline.tokenizer_sha256
    if (protocol.per_token or MEASURES[full.rpartition(".")[2]].per_token) and not is_one:
        message = f"{full} counts tokens, and the baseline has another tokenizer"
        fix = "compare models of one tokenizer, or ask for protocols that count words or bytes: --task NAME/PROTOCOL"
        raise NothingComparable(message, where="--baseline", fix=fix)
