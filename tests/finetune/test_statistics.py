from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gptkit.finetune.study import PER_SEED, bootstrap_interval, over_seeds, study_result
from gptkit.tasks.table import find_task


def coverage(n: int, studies: int = 600) -> float:
    """Return how often the interval of n normal values covers their planted mean."""
    random = np.random.default_rng(7)
    found = [bootstrap_interval(random.normal(0.3, 2.0, n).tolist(), resamples=1000) for _ in range(studies)]
    return float(np.mean([low <= 0.3 <= high for low, high in found]))


def seeds_of(values: list[float]) -> list[dict[str, Any]]:
    """Return the results of runs of RTE that differ by seed and accuracy."""
    same = dict.fromkeys((*PER_SEED, "steps", "tokens"), 1)
    return [
        {**same, "seed": seed, "metrics": {"accuracy": value}, "model_dir": str(seed)}
        for seed, value in enumerate(values)
    ]


def test_mean_and_sample_standard_deviation_by_hand() -> None:
    several = over_seeds(find_task("rte"), seeds_of([2.0, 4.0, 9.0]))
    assert several["metrics"] == {"accuracy": 5.0}
    assert several["std"] == {"accuracy": math.sqrt((9 + 1 + 16) / 2)}
    assert several["model_dir"] == "2"
    alone = over_seeds(find_task("rte"), seeds_of([0.7]))
    assert alone["metrics"] == {"accuracy": 0.7}
    assert not {"std", "interval"} & alone.keys()


def test_a_metric_that_some_seed_lacks_has_no_mean_and_the_best_seed_is_among_the_others() -> None:
    runs = seeds_of([0.2, 0.4, 0.1])
    runs[0]["metrics"] = {"accuracy": None}
    several = over_seeds(find_task("rte"), runs)
    assert several["metrics"] == several["std"] == several["interval"] == {"accuracy": None}
    assert several["model_dir"] == "1"
    assert [seed["metrics"]["accuracy"] for seed in several["per_seed"]] == [None, 0.4, 0.1]
    study = study_result(
        find_task("rte"), {"full": several, "no_aux": over_seeds(find_task("rte"), seeds_of([0.1] * 3))}
    )
    assert study["full_minus"]["no_aux"] == {"metric": "accuracy", "mean": None, "interval": None}


def test_thirty_seeds_cover_a_planted_effect_as_often_as_promised() -> None:
    assert 0.93 < coverage(30) < 0.97


def test_five_seeds_cover_it_nearly_as_often() -> None:
    assert 0.89 < coverage(5) < 0.95


@pytest.mark.parametrize("n", [2, 3, 4])
def test_fewer_seeds_cover_it_as_often_as_promised(n: int) -> None:
    assert 0.92 < coverage(n) < 0.98


def test_an_interval_leaves_out_what_no_accuracy_can_be() -> None:
    several = over_seeds(find_task("rte"), seeds_of([0.2, 0.9]))
    assert several["interval"] == {"accuracy": [0.0, 1.0]}
    study = study_of(full=[0.9, 0.1], no_aux=[0.1, 0.9])
    assert study["full_minus"]["no_aux"]["interval"] == [-1.0, 1.0]


def test_the_interval_is_a_pure_function_that_moves_and_scales_with_the_values() -> None:
    values = [0.61, 0.64, 0.6, 0.66, 0.63]
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert min(values) <= low < np.mean(values) < high <= max(values)
    assert bootstrap_interval([10 * value + 1 for value in values]) == pytest.approx((10 * low + 1, 10 * high + 1))


@pytest.mark.parametrize("n", [2, 5])
def test_seeds_that_all_score_the_same_do_not_show_how_far_others_would(n: int) -> None:
    study = study_of(full=[0.85] * n, no_aux=[0.8] * n)
    assert study["interval"] == {"accuracy": None}
    assert study["full_minus"]["no_aux"]["interval"] is None


def test_two_seeds_that_agree_by_chance_have_no_interval() -> None:
    found = over_seeds(find_task("rte"), seeds_of([0.5, 0.5]))
    assert (found["std"], found["interval"]) == ({"accuracy": 0.0}, {"accuracy": None})


def with_items(runs: list[dict[str, Any]], half: float) -> list[dict[str, Any]]:
    """Return runs whose items' intervals reach this far to both sides."""
    values = [run["metrics"]["accuracy"] for run in runs]
    ends = [[value - half, value + half] for value in values]
    return [run | {"item_interval": {"accuracy": each}} for run, each in zip(runs, ends, strict=True)]


def test_seeds_that_all_score_the_same_know_no_more_than_their_items() -> None:
    found = over_seeds(find_task("rte"), with_items(seeds_of([0.85] * 3), 0.07))
    assert found["interval"] == {"accuracy": pytest.approx([0.78, 0.92])}
    assert found["per_seed"][0]["item_interval"] == {"accuracy": pytest.approx([0.78, 0.92])}


def test_the_spread_of_seeds_and_that_of_their_items_are_added_in_quadrature() -> None:
    task, half = find_task("rte"), 4.302653 * 0.02 / math.sqrt(3)  # Student's quantile for three seeds
    found = over_seeds(task, with_items(seeds_of([0.6, 0.62, 0.64]), 0.05))["interval"]["accuracy"]
    assert found == pytest.approx([0.62 - math.hypot(half, 0.05), 0.62 + math.hypot(half, 0.05)])


def test_a_difference_that_all_seeds_agree_on_is_no_more_certain_than_on_its_items() -> None:
    task, items = find_task("rte"), np.arange(100)
    columns = {name: {"correct": (items < right).astype(np.float64)} for name, right in (("full", 83), ("no_aux", 80))}
    variants = {name: over_seeds(task, seeds_of([float(each["correct"].mean())] * 3)) for name, each in columns.items()}
    study = study_result(task, variants, {name: [each] * 3 for name, each in columns.items()})
    alone = {name: over_seeds(task, seeds_of([float(each["correct"].mean())])) for name, each in columns.items()}
    one = study_result(task, alone, {name: [each] for name, each in columns.items()})
    assert one["full_minus"]["no_aux"]["item_interval"][0] < 0
    assert study["full_minus"]["no_aux"]["interval"] == pytest.approx(one["full_minus"]["no_aux"]["item_interval"])


def test_many_values_agree_with_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(size=400)
    low, high = bootstrap_interval(values.tolist())
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def study_of(**variants: list[float]) -> dict[str, Any]:
    task = find_task("rte")
    return study_result(task, {name: over_seeds(task, seeds_of(values)) for name, values in variants.items()})


def test_pairing_removes_what_the_seeds_share() -> None:
    seeds = np.random.default_rng(5).normal(size=30)
    ours, theirs = seeds + 0.1, seeds + np.random.default_rng(6).normal(0, 0.01, 30)
    study = study_of(full=ours.tolist(), no_aux=theirs.tolist())
    low, high = study["full_minus"]["no_aux"]["interval"]
    assert 0 < low < 0.1 < high < 0.12
    assert high - low < 0.05 * np.subtract(*bootstrap_interval(ours.tolist())[::-1])


def test_too_few_values_and_unpaired_seeds_are_errors() -> None:
    with pytest.raises(ValueError, match="two values"):
        bootstrap_interval([0.5])
    with pytest.raises(ValueError, match="shorter"):
        study_of(full=[0.5, 0.6], no_aux=[0.5])
