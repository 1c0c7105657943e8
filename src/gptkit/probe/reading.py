"""How one unit and one direction read texts: their values by label and token by token; what to hold the unit at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.probe.fit import Floats, Labels, Probe
from gptkit.probe.inputs import Split
from gptkit.scoring.resampling import auc_rows
from gptkit.tasks.frozen_states import Site, running_states
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer
from gptkit.text.tokenizers.shown import pieces_of

TEXTS = 12  # shown token by token, in turn of each label
BINS = 24


class Reader(NamedTuple):
    """A number that is read off a site's states: the value of a unit, or the score of a label's direction."""

    site: Site
    weights: NDArray[np.float64]  # (unit,)
    bias: float
    label: int  # that it tells best from the others

    def __call__(self, states: Floats) -> Floats:
        """Return the values (state,) of states (state, unit)."""
        return np.asarray(states @ self.weights + self.bias, np.float32)


@dataclass(frozen=True)
class ReadText:
    label: int
    pieces: tuple[str, ...]
    values: tuple[Floats, ...]  # of each reader, (token,)


def unit_reader(site: Site, unit: int, states: Floats, labels: Labels) -> Reader:
    """Return the reader of one unit, and the label of the states (example, unit) that its value tells apart best."""
    weights = np.zeros(states.shape[1])
    weights[unit] = 1.0
    areas = [abs(area - 0.5) for area in _areas(states[:, unit], labels)]
    return Reader(site, weights, 0.0, _label_of(areas, labels))


def direction_reader(site: Site, probe: Probe, states: Floats, labels: Labels) -> Reader:
    """Return the direction, of the classifier's rows, that ranks its own label highest above the others."""
    scores = probe.classifier.scores(probe.scale(states))  # (example, row)
    row, label = 0, 1
    if scores.shape[1] > 1:
        row = label = _label_of(_areas(scores, labels), labels)
    weights = probe.classifier.weights[row] / probe.scale.deviation
    return Reader(site, weights, float(probe.classifier.bias[row] - weights @ probe.scale.mean), label)


def _areas(values: NDArray[np.floating], labels: Labels) -> list[float]:
    """Return, for each label that occurs, the area under the ROC curve of its values against the others'.

    Values are (example,), or (example, label) with a column for each label.
    """
    columns = {label: values if values.ndim == 1 else values[:, label] for label in np.unique(labels).tolist()}
    return [float(auc_rows(column.astype(np.float64), (labels == label) * 1.0)) for label, column in columns.items()]


def _label_of(areas: Sequence[float], labels: Labels) -> int:
    return int(np.unique(labels)[int(np.argmax(areas))])


def histograms(values: Floats, labels: Labels, classes: int) -> tuple[list[float], list[list[int]]]:
    """Return the edges of bins over all values, and the counts (label, bin)."""
    edges = np.histogram_bin_edges(values, BINS)
    return edges.tolist(), [np.histogram(values[labels == label], edges)[0].tolist() for label in range(classes)]


def read_texts(
    model: GPTForCausalLM, tokenizer: AnyTokenizer, split: Split, readers: Sequence[Reader]
) -> list[ReadText]:
    """Return some texts of a split with the value of each reader after every token."""
    found = []
    for row in _in_turn(split.labels):
        ids = split.encoded.ids[slice(*split.encoded.offsets[row : row + 2].tolist())].tolist()
        states = running_states(model, ids, [reader.site for reader in readers])
        values = tuple(reader(own) for reader, own in zip(readers, states, strict=True))
        found.append(ReadText(int(split.labels[row]), tuple(pieces_of(tokenizer, ids)), values))
    return found


def _in_turn(labels: Labels) -> list[int]:
    """Return rows, the first of each label before the second of any."""
    turns = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        turns[own] = np.arange(len(own))
    return [int(row) for row in np.lexsort((labels, turns))[:TEXTS]]


def held_values(values: Floats) -> tuple[float, ...]:
    """Return three values to hold a unit at: its lowest, median and highest, in as many digits as are printed."""
    return tuple(float(f"{value:.4g}") for value in (values.min(), np.median(values), values.max()))
