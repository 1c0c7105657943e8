"""What fine-tuning tells people: no difference that its items or seeds do not show, and no empty columns."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest

from gptkit.console import Console
from gptkit.finetune.report import print_result
from gptkit.finetune.study import PER_SEED, over_seeds, study_result
from gptkit.tasks.table import find_task
from gptkit.tasks.task import Task

RTE, STSB = find_task("rte"), find_task("stsb")
N = 180


def run_of(right: int, seed: int = 0) -> dict[str, Any]:
    same = dict.fromkeys((*PER_SEED, "steps", "tokens"), 1)
    return {**same, "seed": seed, "metrics": {"accuracy": right / N}, "model_dir": "m", "n_eval": N, "model": "gpt"}


def columns_of(*right: range) -> dict[str, Any]:
    return {"correct": np.isin(np.arange(N), [item for some in right for item in some]).astype(np.float64)}


def shown(result: dict[str, Any], task: Task = RTE) -> str:
    stream = io.StringIO()
    print_result({"run_dir": "runs/study", **result}, task, Console(stdout=stream, environment={}))
    return stream.getvalue()


def of_one(items: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the items of one seed."""
    return {name: [columns] for name, columns in items.items()}


def study(no_aux: dict[str, Any], no_pretraining: dict[str, Any]) -> dict[str, Any]:
    items = {"full": columns_of(range(100)), "no_aux": no_aux, "no_pretraining": no_pretraining}
    counts = {name: int(columns["correct"].sum()) for name, columns in items.items()}
    return study_result(RTE, {name: over_seeds(RTE, [run_of(count)]) for name, count in counts.items()}, of_one(items))


def test_three_of_180_items_are_no_difference_and_thirty_are() -> None:
    result = study(columns_of(range(103)), columns_of(range(70)))
    assert result["full_minus"]["no_aux"]["mean"] == pytest.approx(-3 / N)
    low, high = result["full_minus"]["no_aux"]["item_interval"]
    assert low < 0 <= high
    text = shown(result)
    line = "full minus no aux LM: too few to tell (95% interval over 180 items of dev, one seed: -4.04 to 0.75)"
    assert line in text
    assert "full minus no pre-training: +16.67 points (95% interval over 180 items of dev, one seed: " in text
    assert "-1.667 points" not in text
    assert "n/a" not in text


def test_seeds_are_compared_by_their_own_spread() -> None:
    variants = {"full": (100, 110), "no_aux": (108, 103), "no_pretraining": (60, 69)}
    runs = {name: over_seeds(RTE, [run_of(*pair[::-1]) for pair in enumerate(each)]) for name, each in variants.items()}
    text = shown(study_result(RTE, runs, {}))
    assert (
        "full minus no aux LM: too few to tell (95% interval over 180 items of dev, 2 seeds: -53.22 to 52.66)" in text
    )
    line = "full minus no pre-training: +22.50 points (95% interval over 180 items of dev, 2 seeds: 18.97 to 26.03)"
    assert line in text
    assert " std " in text


def test_the_figures_of_other_splits_stand_beside_what_dev_has() -> None:
    test = {"metrics": {"accuracy": 0.9}, "item_interval": {"accuracy": [0.8, 0.95]}, "chance": {"accuracy": 0.6}}
    predicted = {"test": {"n": 86, **test}, "new": {"n": 20}}
    text = shown(over_seeds(RTE, [run_of(90)]) | {"predicted": predicted})
    assert re.search(r"accuracy +90.00% +80.00% to 95.00% +60.00%\n95% interval: over 86 items of test", text)
    assert "new" not in text


def test_columns_that_are_unknown_throughout_are_left_out() -> None:
    alone = over_seeds(RTE, [run_of(90) | {"item_interval": {"accuracy": [0.43, 0.57]}}])
    text = shown(alone)
    assert " std " not in text
    assert "95% interval: over 180 items of dev, one seed" in text
    older = over_seeds(RTE, [run_of(90)])  # a run of an earlier version
    assert "interval" not in shown(older)
    variants = {name: over_seeds(RTE, [run_of(90)]) for name in ("full", "no_aux")}
    kept = study_result(RTE, variants, of_one({name: columns_of(range(90)) for name in variants}))
    del kept["full_minus"]["no_aux"]["item_interval"]
    assert "full minus no aux LM: not known from 180 items of dev, one seed" in shown(kept)


def test_equal_scores_of_few_seeds_at_chance_are_not_called_better() -> None:
    text = shown(over_seeds(RTE, [run_of(90) | {"chance": {"accuracy": 0.5}}] * 2))
    assert "accuracy is not shown to be better than chance" in text


@pytest.mark.parametrize(("low", "is_told"), [(0.49, True), (0.51, False)])
def test_a_result_stands_beside_chance_and_one_that_holds_it_is_told_what_to_try(low: float, is_told: bool) -> None:
    found = {"item_interval": {"accuracy": [low, 0.7]}, "chance": {"accuracy": 0.5}}
    text = shown(over_seeds(RTE, [run_of(108) | found]))
    assert "50.00%" in text
    assert "chance: always the most frequent class" in text
    line = "accuracy is not shown to be better than chance: try more --epochs or a higher --learning-rate"
    assert (line in text) == is_told
    few = shown(over_seeds(RTE, [run_of(108) | found | {"n_eval": 13}]))
    assert ("try more labelled examples, as dev has so few, more --epochs" in few) == is_told
    assert "try more --seeds, more --epochs" in shown(over_seeds(RTE, [run_of(90) | found, run_of(100) | found]))


def test_a_study_stands_beside_chance_too() -> None:
    run = run_of(90) | {"item_interval": {"accuracy": [0.43, 0.57]}, "chance": {"accuracy": 0.527}}
    variants = {name: over_seeds(RTE, [run]) for name in ("full", "no_aux")}
    text = shown(study_result(RTE, variants, of_one({name: columns_of(range(90)) for name in variants})))
    assert text.count("52.70%") == 2
    assert "accuracy is not shown to be better than chance" in text


def test_correlations_are_not_percentages() -> None:
    run = {**run_of(0), "metrics": {"pearson": 0.0752, "spearman": 0.1}}
    text = shown(over_seeds(STSB, [run]), STSB)
    assert "0.0752" in text
    assert "7.52" not in text


def test_a_loss_through_pre_training_is_told_what_to_look_at() -> None:
    line = "pre-training lowers the score here: pre-train longer, and fine-tune the weights of the last step"
    assert line in shown(study(columns_of(range(100)), columns_of(range(150))))
    for no_pretraining in (50, 103):  # three more of 180 items are no difference
        assert line not in shown(study(columns_of(range(100)), columns_of(range(no_pretraining))))
