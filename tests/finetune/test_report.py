"""What fine-tuning tells people: no difference that its items or seeds do not show, and no empty columns."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from gptkit.console import Console
from gptkit.finetune.report import print_result
from gptkit.finetune.study import PER_SEED, over_seeds, study_result
from gptkit.tasks.table import find_task

RTE = find_task("rte")
N = 180


def run_of(right: int, seed: int = 0) -> dict[str, Any]:
    same = dict.fromkeys((*PER_SEED, "steps", "tokens"), 1)
    return {**same, "seed": seed, "metrics": {"accuracy": right / N}, "model_dir": "m", "n_eval": N, "model": "gpt"}


def columns_of(*right: range) -> dict[str, Any]:
    return {"correct": np.isin(np.arange(N), [item for some in right for item in some]).astype(np.float64)}


def shown(result: dict[str, Any]) -> str:
    stream = io.StringIO()
    print_result({"run_dir": "runs/study", **result}, RTE, Console(stdout=stream, environment={}))
    return stream.getvalue()


def study(no_aux: dict[str, Any], no_pretraining: dict[str, Any]) -> dict[str, Any]:
    items = {"full": columns_of(range(100)), "no_aux": no_aux, "no_pretraining": no_pretraining}
    counts = {name: int(columns["correct"].sum()) for name, columns in items.items()}
    return study_result(RTE, {name: over_seeds(RTE, [run_of(count)]) for name, count in counts.items()}, items)


def test_three_of_180_items_are_no_difference_and_thirty_are() -> None:
    result = study(columns_of(range(103)), columns_of(range(70)))
    assert result["full_minus"]["no_aux"]["mean"] == pytest.approx(-3 / N)
    low, high = result["full_minus"]["no_aux"]["item_interval"]
    assert low < 0 <= high
    text = shown(result)
    line = "full minus no aux LM: no difference found (180 items of dev, one seed, 95% interval -4.044 to 0.7477)"
    assert line in text
    assert "full minus no pre-training: +16.67 points (180 items of dev, one seed, 95% interval " in text
    assert "-1.667 points" not in text
    assert "n/a" not in text


def test_seeds_are_compared_by_their_own_spread() -> None:
    variants = {"full": (100, 110), "no_aux": (108, 103), "no_pretraining": (60, 69)}
    runs = {name: over_seeds(RTE, [run_of(*pair[::-1]) for pair in enumerate(each)]) for name, each in variants.items()}
    text = shown(study_result(RTE, runs, {}))
    assert "full minus no aux LM: no difference found (2 seeds, 95% interval -4.444 to 3.889)" in text
    assert "full minus no pre-training: +22.5 points (2 seeds, 95% interval 22.22 to 22.78)" in text
    assert " std " in text


def test_columns_that_are_unknown_throughout_are_left_out() -> None:
    alone = over_seeds(RTE, [run_of(90) | {"item_interval": {"accuracy": [0.43, 0.57]}}])
    text = shown(alone)
    assert " std " not in text
    assert "95% interval: 180 items of dev, one seed" in text
    older = over_seeds(RTE, [run_of(90)])  # a run of an earlier version
    assert "interval" not in shown(older)
    variants = {name: over_seeds(RTE, [run_of(90)]) for name in ("full", "no_aux")}
    kept = study_result(RTE, variants, {name: columns_of(range(90)) for name in variants})
    del kept["full_minus"]["no_aux"]["item_interval"]
    assert "full minus no aux LM: not known from one seed" in shown(kept)
