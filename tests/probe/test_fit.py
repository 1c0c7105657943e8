"""The fits of a site: a unit that carries the label is found, and noise is no better than its control."""

from __future__ import annotations

import numpy as np
import pytest

from gptkit.probe.fit import FITS, STRENGTHS, Classifier, Data, Examples, Probe, Scale, explained, probe_site

PLANTED = 5


def made(classes: int, count: int, *, seed: int, signal: float) -> Examples:
    """Return noise in which one unit follows the label; another is constant, a third has a large mean and scale."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    states = draw.standard_normal((count, 12)).astype(np.float32)
    states[:, PLANTED] += signal * labels
    states[:, 3], states[:, 4] = 0.25, 1000 + 100 * states[:, 4]
    return Examples(states, labels)


def probed(classes: int, signal: float, *, seed: int = 0) -> Probe:
    train, dev, test = (made(classes, 150, seed=10 * seed + part, signal=signal) for part in range(3))
    return probe_site(Data(train, dev, train, test), classes, seed=seed)


def test_the_planted_unit_is_found_among_two_labels() -> None:
    probe = probed(2, 6.0)
    assert probe.best_unit == PLANTED
    assert probe.classifier.units()[0] == PLANTED
    assert probe.unit_right.mean() > 0.97
    assert probe.right.mean() > 0.97
    assert probe.steps[0].units == 1
    assert probe.steps[0].dev.mean() > 0.97
    assert 0.3 < probe.control_right.mean() < 0.7


def test_the_planted_unit_is_found_among_four_labels() -> None:
    probe = probed(4, 8.0)
    assert probe.best_unit == PLANTED
    assert probe.classifier.weights.shape == (4, 12)
    assert probe.right.mean() > 0.45  # the middle labels lie on neither side of one unit
    assert probe.control_right.mean() < 0.4


def test_noise_is_no_better_than_its_control() -> None:
    rights, controls = zip(*((probe.right.mean(), probe.control_right.mean()) for probe in noise()), strict=True)
    assert abs(np.mean(rights) - 0.5) < 0.1
    assert abs(np.mean(controls) - 0.5) < 0.1


def noise() -> list[Probe]:
    return [probed(2, 0.0, seed=seed) for seed in range(1, 4)]


def test_the_strength_is_the_best_on_dev_and_of_equals_the_strongest_penalty() -> None:
    probe = probed(2, 1.0)
    assert [tried.strength for tried in probe.strengths] == list(STRENGTHS)
    best = max(tried.dev.mean() for tried in probe.strengths)
    assert probe.chosen is next(tried for tried in probe.strengths if tried.dev.mean() == best)
    assert probe.classifier.units().size == probe.chosen.units
    units = [tried.units for tried in probe.strengths]
    assert units[0] < units[-1]  # the penalty leaves few units


def test_without_a_test_split_the_reported_fit_is_on_all_of_train() -> None:
    train, test = made(2, 200, seed=0, signal=6.0), made(2, 100, seed=1, signal=6.0)
    rows = np.arange(40)
    held_out = probe_site(Data(train.rows(np.arange(40, 200)), train.rows(rows), train, test), 2)
    whole = probe_site(Data(train, train.rows(rows), train, test), 2)
    assert len(held_out.chosen.dev) == 40
    if held_out.chosen.strength == whole.chosen.strength:
        assert np.array_equal(held_out.classifier.weights, whole.classifier.weights)


def test_progress_counts_every_fit_of_a_strength() -> None:
    train = made(2, 60, seed=0, signal=6.0)
    calls: list[None] = []
    probe_site(Data(train, train, train, train), 2, fitted=lambda: calls.append(None))
    assert len(calls) == FITS


def test_a_label_without_examples_is_never_predicted() -> None:
    train = made(2, 80, seed=0, signal=6.0)
    probe = probe_site(Data(train, train, train, train), 3)
    assert probe.right.mean() > 0.9
    assert not np.isfinite(probe.classifier.bias[2])


def test_explained_is_the_share_of_variance_between_labels() -> None:
    states = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0], [4.0, 3.0, 5.0], [6.0, 3.0, 5.0]], np.float32)
    by_hand = [16 / 20, 1.0, 0.0]  # means 1 and 5 around 3: 4 x 4 of 9 + 1 + 1 + 9; all of it; a constant
    assert explained(Examples(states, np.array([0, 0, 1, 1]))) == pytest.approx(by_hand)


def test_scaled_states_have_mean_zero_and_deviation_one_and_a_constant_stays_zero() -> None:
    states = made(2, 100, seed=0, signal=6.0).states
    scaled = Scale.of(states)(states)
    assert np.abs(scaled.mean(axis=0)).max() < 1e-3
    assert np.delete(scaled.std(axis=0), 3) == pytest.approx(1, abs=1e-3)
    assert not scaled[:, 3].any()


def test_the_scores_of_a_classifier_are_its_weights_times_the_states() -> None:
    classifier = Classifier(np.array([[1.0, -2.0]]), np.array([0.5]))
    states = np.array([[3.0, 1.0], [0.0, 1.0]], np.float32)
    assert classifier.scores(states).tolist() == [[1.5], [-1.5]]
    assert classifier.right(Examples(states, np.array([1, 1]))).tolist() == [1.0, 0.0]
    assert classifier.units().tolist() == [1, 0]
