"""Logistic regression with an L1 penalty on the states of one site, its units one by one, and its control.

As for the sentiment neuron (Radford, Jozefowicz and Sutskever 2017): the strength C, which divides the penalty, is one
of 2^-8 .. 2^0, chosen by accuracy on dev; what is reported is the fit on train. Several classes are told apart one
against the rest. Unlike theirs, each unit is first divided by its standard deviation on train, since the units of a
residual stream differ in scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Right = NDArray[np.float64]  # (example,): 1 where the label is found

STRENGTHS = tuple(2.0**power for power in range(-8, 1))
CANDIDATES = 512  # units fitted one by one: if there are more, those whose means differ most between classes
FITS = 2 * len(STRENGTHS)  # of a site, its control's included, for a progress bar


@dataclass(frozen=True, eq=False)
class Examples:
    states: Floats  # (example, unit)
    labels: Labels  # (example,)

    def only(self, units: Sequence[int] | NDArray[np.int64]) -> Examples:
        return Examples(self.states[:, units], self.labels)

    def rows(self, chosen: NDArray[np.int64]) -> Examples:
        return Examples(self.states[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class Data:
    """One site's examples. Every strength is fitted on `fitted`, train or a part of it, and compared on dev."""

    fitted: Examples
    dev: Examples
    train: Examples
    test: Examples  # what is reported

    def changed(self, change: Callable[[Examples], Examples]) -> Data:
        """Return the data with every part changed; what is two of them, once."""
        parts = (self.fitted, self.dev, self.train, self.test)
        done = {id(part): change(part) for part in parts}
        return Data(*(done[id(part)] for part in parts))


class Scale(NamedTuple):
    """The mean and standard deviation of each unit on train, 1 where it is constant."""

    mean: Floats  # (unit,)
    deviation: Floats  # (unit,)

    @classmethod
    def of(cls, states: Floats) -> Scale:
        mean, deviation = states.mean(axis=0), states.std(axis=0)
        return cls(mean, np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6), deviation, 1).astype(np.float32))

    def __call__(self, states: Floats) -> Floats:
        return np.asarray((states - self.mean) / self.deviation, np.float32)


class Classifier(NamedTuple):
    """A row of weights for each class against the rest; for two classes one row, for the second class."""

    weights: NDArray[np.float64]  # (row, unit), of scaled states
    bias: NDArray[np.float64]  # (row,)

    def scores(self, states: Floats) -> NDArray[np.float64]:
        """Return the scores (example, row) of scaled states."""
        return np.asarray(states @ self.weights.T + self.bias)

    def right(self, examples: Examples) -> Right:
        scores = self.scores(examples.states)
        predicted = scores[:, 0] > 0 if len(self.bias) == 1 else scores.argmax(axis=1)
        return np.asarray(predicted == examples.labels, np.float64)

    def units(self) -> NDArray[np.int64]:
        """Return the units with a weight, largest first (for several classes, by their largest weight)."""
        largest = np.abs(self.weights).max(axis=0)
        order = np.argsort(-largest, kind="stable")
        return np.asarray(order[largest[order] > 0])


class Strength(NamedTuple):
    """A strength that was tried: how many units its fit uses, and its answers on dev."""

    strength: float
    units: int
    dev: Right


class Step(NamedTuple):
    """A fit on the units of largest weight alone."""

    units: int
    dev: Right


@dataclass(frozen=True, eq=False)
class Probe:
    """What one site knows; answers whose name ends in `right` are on the reported split, (example,)."""

    scale: Scale
    strengths: tuple[Strength, ...]
    chosen: Strength
    classifier: Classifier
    right: Right
    steps: tuple[Step, ...]
    best_unit: int
    unit_dev: Right
    unit_right: Right
    control_right: Right


def probe_site(data: Data, classes: int, *, seed: int = 0, fitted: Callable[[], object] = lambda: None) -> Probe:
    """Return the probe of one site's states; `fitted` is called FITS times."""
    scale = Scale.of(data.train.states)
    data = data.changed(lambda part: Examples(scale(part.states), part.labels))
    classifier, chosen, tried = _chosen(data, classes, seed, fitted)
    random = np.random.default_rng(seed)
    shuffled = data.changed(lambda part: Examples(part.states, random.permutation(part.labels)))
    control, _, _ = _chosen(shuffled, classes, seed, fitted)
    unit, alone = _best_unit(data, classes, seed)
    return Probe(
        scale=scale,
        strengths=tuple(tried),
        chosen=chosen,
        classifier=classifier,
        right=classifier.right(data.test),
        steps=tuple(_steps(data, classifier.units(), classes, seed)),
        best_unit=unit,
        unit_dev=alone.right(data.dev.only([unit])),
        unit_right=alone.right(data.test.only([unit])),
        control_right=control.right(shuffled.test),
    )


def fit(examples: Examples, classes: int, strength: float, seed: int) -> Classifier:
    """Return L1 logistic regression on scaled states; a class that no example has is never predicted."""
    from sklearn.linear_model import LogisticRegression

    rows = range(classes) if classes > 2 else [1]
    weights, bias = np.zeros((len(rows), examples.states.shape[1])), np.full(len(rows), -np.inf)
    for row, label in enumerate(rows):
        is_label = examples.labels == label
        if is_label.any() and not is_label.all():
            model = LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", max_iter=1000, random_state=seed)
            model.fit(examples.states, is_label)
            weights[row], bias[row] = model.coef_[0], model.intercept_[0]
    return Classifier(weights, bias)


def _chosen(
    data: Data, classes: int, seed: int, fitted: Callable[[], object]
) -> tuple[Classifier, Strength, list[Strength]]:
    """Return the fit on train of the strength that is best on dev, the strongest penalty of equals, and all tried."""
    tried, fits = [], []
    for strength in STRENGTHS:
        found = fit(data.fitted, classes, strength, seed)
        tried.append(Strength(strength, len(found.units()), found.right(data.dev)))
        fits.append(found)
        fitted()
    best = max(range(len(tried)), key=lambda number: tried[number].dev.mean())  # the first of equals
    on_train = fits[best] if data.fitted is data.train else fit(data.train, classes, STRENGTHS[best], seed)
    return on_train, tried[best], tried


def _steps(data: Data, units: NDArray[np.int64], classes: int, seed: int) -> list[Step]:
    """Return fits, at the weakest penalty, on the 1, 2, 4, ... units of largest weight and on all that have one."""
    counts = sorted({len(units), *(2**power for power in range(14) if 2**power < len(units))} - {0})
    found = []
    for count in counts:
        chosen = units[:count]
        classifier = fit(data.fitted.only(chosen), classes, STRENGTHS[-1], seed)
        found.append(Step(count, classifier.right(data.dev.only(chosen))))
    return found


def _best_unit(data: Data, classes: int, seed: int) -> tuple[int, Classifier]:
    """Return the unit that alone is most accurate on dev, and its fit; of equals the one that varies most by class."""
    candidates = np.argsort(-explained(data.fitted), kind="stable")[:CANDIDATES].tolist()

    def alone(unit: int, examples: Examples) -> Classifier:
        return fit(examples.only([unit]), classes, STRENGTHS[-1], seed)

    best = max(candidates, key=lambda unit: alone(unit, data.fitted).right(data.dev.only([unit])).mean())  # the first
    return best, alone(best, data.train)


def explained(examples: Examples) -> NDArray[np.float64]:
    """Return the share of each unit's variance that lies between classes (unit,); 0 where it is constant."""
    states = examples.states.astype(np.float64) - examples.states.mean(axis=0, dtype=np.float64)
    total = (states**2).sum(axis=0)
    classes = [states[examples.labels == label] for label in np.unique(examples.labels)]
    between = sum(len(own) * own.mean(axis=0) ** 2 for own in classes)
    return np.asarray(np.divide(between, total, out=np.zeros_like(total), where=total > 1e-12))
