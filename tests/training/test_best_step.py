"""The best step by a metric: noted, saved, kept through pruning, and the same after going on from anywhere."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from training_toy import bits_equal, everything, toy, toy_loss, toy_train

from gptkit.errors import InputError, Interrupted
from gptkit.system.run_layout import all_steps
from gptkit.system.signals import StopRequest
from gptkit.training.batches import Batch, StopEvaluation
from gptkit.training.checkpoints import RunState, load_weights, newest_committed, read_state
from gptkit.training.job import Event, Plan

VALUES = {2: 0.5, 4: 0.9, 6: 0.7, 8: 0.9, 10: 0.8, 12: 0.1}  # the best is step 4: of equals the earlier


def scripted(stop: StopRequest | None = None, cut_at: int = -1) -> Callable[[Callable[[], bool]], Any]:
    """An evaluation that returns VALUES one after another; at `cut_at` a signal comes and it leaves off."""
    steps = iter(VALUES)

    def evaluate(should_stop: Callable[[], bool]) -> Mapping[str, float]:
        step = next(steps)
        if step == cut_at and stop is not None:
            stop.ask(signal.SIGTERM)
            raise StopEvaluation
        return {"val_loss": 1.0, "accuracy": VALUES[step]}

    return evaluate


def going_on_after(step: int) -> Callable[[Callable[[], bool]], Any]:
    steps = iter(one for one in VALUES if one > step)
    return lambda should_stop: {"val_loss": 1.0, "accuracy": VALUES[next(steps)]}


def best_of(events: list[Event]) -> int | None:
    assert isinstance(events[-1], RunState)
    return events[-1].best_step


def plan(**changes: Any) -> Plan:
    return Plan(**({"steps": 12, "eval_every": 2, "save_every": 2, "best_by": "accuracy"} | changes))


def names(directory: Path) -> list[str]:
    return [path.name for path in all_steps(directory)]


def test_the_best_is_kept_through_pruning_and_its_weights_come_back(tmp_path: Path) -> None:
    model, _, events = toy_train(plan(), evaluate=scripted(), checkpoint_directory=tmp_path)
    assert best_of(events) == 4
    assert names(tmp_path) == ["step-000012", "step-000010", "step-000004"]
    at_4 = toy_train(plan(steps=12, best_by=None), evaluate=None, checkpoint_directory=tmp_path / "all")[0]
    assert bits_equal(at_4.state_dict(), model.state_dict())  # choosing a best changes no bit
    load_weights(tmp_path / "step-000004", model)
    assert not bits_equal(at_4.state_dict(), model.state_dict())
    state = read_state(tmp_path / "step-000012")
    assert (state.best_step, state.best_value) == (4, 0.9)


@pytest.mark.parametrize(
    ("values", "best"), [([math.nan, 0.0, math.nan], 4), ([math.nan] * 3, 2), ([0.1, math.nan, 0.0], 2)]
)
def test_a_metric_that_is_not_defined_is_never_the_best_of_others(
    values: list[float], best: int, tmp_path: Path
) -> None:
    told = iter(values)
    events = toy_train(
        plan(steps=6), evaluate=lambda _: {"val_loss": 1.0, "accuracy": next(told)}, checkpoint_directory=tmp_path
    )[2]
    assert best_of(events) == best
    assert read_state(newest_committed(tmp_path).path).best_step == best


def test_a_new_best_is_saved_when_no_checkpoint_is_due(tmp_path: Path) -> None:
    events = toy_train(plan(save_every=None), evaluate=scripted(), checkpoint_directory=tmp_path)[2]
    assert best_of(events) == 4
    assert names(tmp_path) == ["step-000012", "step-000004"]


def test_without_best_by_nothing_is_chosen_or_kept(tmp_path: Path) -> None:
    events = toy_train(plan(best_by=None), evaluate=scripted(), checkpoint_directory=tmp_path)[2]
    assert best_of(events) is None
    assert names(tmp_path) == ["step-000012", "step-000010"]


@pytest.mark.parametrize("cut", [3, 5, 9])
def test_going_on_from_a_stop_gives_the_same_best_and_the_same_bits(cut: int, tmp_path: Path) -> None:
    model, optimizer, events = toy_train(plan(), evaluate=scripted(), checkpoint_directory=tmp_path / "whole")
    expected, stop, passes = everything(model, optimizer), StopRequest(), 0

    def stopping(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
        nonlocal passes
        passes += 1
        if passes == 3 * cut:  # three micro-batches a step
            stop.ask(signal.SIGTERM)
        return toy_loss(model, batch, count)

    cut_short = tmp_path / "cut"
    with pytest.raises(Interrupted):
        toy_train(plan(), evaluate=scripted(), loss=stopping, checkpoint_directory=cut_short, stop=stop)
    found = newest_committed(cut_short)
    assert found.path == cut_short / f"step-{cut:06d}"
    model, optimizer, events = toy_train(
        plan(),
        model=toy(seed=1),
        evaluate=going_on_after(cut),
        checkpoint_directory=cut_short,
        resume_from=found.path,
    )
    assert best_of(events) == 4
    assert bits_equal(everything(model, optimizer), expected)
    assert "step-000004" in names(cut_short)


def test_going_on_after_a_kill_gives_the_same_best_and_the_same_bits(tmp_path: Path) -> None:
    """A kill leaves what the last save left: the checkpoints up to it."""
    whole = tmp_path / "whole"
    model, optimizer, _ = toy_train(plan(keep_checkpoints=9), evaluate=scripted(), checkpoint_directory=whole)
    expected = everything(model, optimizer)
    load_weights(whole / "step-000004", model)
    best = everything(model, optimizer)
    for step in (2, 4, 6, 10):
        left = tmp_path / f"killed-after-{step}"
        kept = {4, step} if step > 4 else {step}
        for one in kept:
            shutil.copytree(whole / f"step-{one:06d}", left / f"step-{one:06d}")
        model, optimizer, events = toy_train(
            plan(),
            model=toy(seed=1),
            evaluate=going_on_after(step),
            checkpoint_directory=left,
            resume_from=newest_committed(left).path,
        )
        assert best_of(events) == 4
        assert bits_equal(everything(model, optimizer), expected)
        assert names(left) == ["step-000012", "step-000010", "step-000004"]
        load_weights(left / "step-000004", model)
        assert bits_equal(everything(model, optimizer), best)


def test_an_evaluation_cut_short_still_finds_its_best_when_made_up_for(tmp_path: Path) -> None:
    stop = StopRequest()
    with pytest.raises(Interrupted):
        toy_train(plan(), evaluate=scripted(stop, cut_at=4), checkpoint_directory=tmp_path, stop=stop)
    found = newest_committed(tmp_path)
    assert found.path == tmp_path / "step-000004"
    assert read_state(found.path).best_step == 2
    events = toy_train(plan(), evaluate=going_on_after(2), checkpoint_directory=tmp_path, resume_from=found.path)[2]
    assert best_of(events) == 4
    assert names(tmp_path) == ["step-000012", "step-000010", "step-000004"]


def test_falling_back_finds_the_best_that_the_older_checkpoint_knows(tmp_path: Path) -> None:
    """Steps 2 and 4 were each the best once; with step 6 damaged, step 4's own best must be there."""
    values = iter([0.1, 0.2, 0.3])
    toy_train(plan(steps=6), evaluate=lambda stop: {"accuracy": next(values)}, checkpoint_directory=tmp_path)
    assert names(tmp_path) == ["step-000006", "step-000004"]
    (tmp_path / "step-000006" / "model.safetensors").write_bytes(b"")
    found = newest_committed(tmp_path)
    assert found.path == tmp_path / "step-000004"
    assert read_state(found.path).best_step == 4


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    toy_train(Plan(steps=1), checkpoint_directory=tmp_path)
    path = tmp_path / "step-000001" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="differs from its sha256"):
        load_weights(path.parent, toy())
    with pytest.raises(InputError, match="cannot be used"):
        load_weights(tmp_path / "step-000009", toy())
