"""What saving costs beside training, and that going on takes no longer the more steps were made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from children import command, run_command, start
from small_runs import SmallRuns

from figures import Count, Report
from gptkit.pretrain.options import PretrainOptions
from gptkit.recipes import read_recipe, recipes_root

BOUND, SECONDS = 0.05, 10


def timed(words: list[str], target: Path) -> NoReturn:
    """Be gptkit, leaving the seconds of each save and of a step."""
    from gptkit.training import run as training_run
    from gptkit.training.checkpoints import RunState
    from gptkit.training.job import CheckpointEvent

    train = training_run.train
    saves: list[float] = []

    def noted(*arguments: Any, **more: Any) -> Iterator[Any]:
        for event in train(*arguments, **more):
            if isinstance(event, CheckpointEvent):
                saves.append(event.seconds)
            elif isinstance(event, RunState):
                target.write_text(json.dumps({"saves": saves, "step": event.train_seconds / event.step}))
            yield event

    training_run.train = noted
    command(words)


def test_saving_costs_a_twentieth_of_its_interval_at_most(
    small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    """The default run's model and step; its steps from one save to the next are those of its recipe."""
    recipe = read_recipe(recipes_root() / "pretrain" / "laptop.yaml", PretrainOptions)
    interval = recipe["eval_every"]
    steps = count(4, 40)
    words = ["pretrain", str(small.folder / "text.txt"), "--recipe", "laptop", "--tokenizer", "char", "--out", "run"]
    words += ["--steps", str(steps), "--eval-every", str(steps), "--save-every", "2", "--compile", "off"]
    child = start(timed, words, tmp_path / "times", log=tmp_path / "log")
    assert child.wait(600) == 0, child.err
    times = json.loads((tmp_path / "times").read_text())
    save = sum(times["saves"]) / len(times["saves"])
    share = save / (interval * times["step"])
    assert share <= BOUND
    outcome = (
        f"{1000 * save:.0f} ms a save beside {interval} steps of {1000 * times['step']:.0f} ms: {100 * share:.2f}%"
    )
    figure("R28", "saves of the laptop model (hashed, synced)", len(times["saves"]), outcome, bound="at most 5%")


@pytest.mark.slow
def test_going_on_takes_no_longer_after_more_steps(
    small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    seconds = {}
    for steps in (20, count(200, 5000)):
        run = tmp_path / f"{steps}" / "run"
        words = small.pretrain(run, steps=steps, save_every=steps - 2, eval_every=steps, log_every=10)
        assert run_command(words, log=tmp_path / "log", timeout=600).wait() == 0
        (run / "result.json").unlink()
        shutil.rmtree(run / "checkpoints" / f"step-{steps:06d}")
        resumed = run_command(words, log=tmp_path / "log")
        assert resumed.wait() == 0, resumed.err
        result = json.loads((run / "result.json").read_text())
        assert result["resumed_from"] == steps - 2
        seconds[steps] = result["elapsed_seconds"]
    few, many = seconds.values()
    assert max(few, many) <= SECONDS
    assert many < 2 * few + 1
    told = ", ".join(f"{one - 2:,} steps: {taken:.1f} s" for one, taken in seconds.items())
    outcome = f"the last two steps, model and picture of a run resumed after {told}"
    figure("R28", "going on", 2, outcome, bound="at most 10 s + loading, whatever the steps")
