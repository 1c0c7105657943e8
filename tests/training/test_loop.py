from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from training_toy import (
    LENGTH,
    ROWS,
    Toy,
    bits_equal,
    everything,
    options,
    rows,
    step_rows,
    supervised,
    toy,
    toy_job,
    toy_loss,
    toy_train,
)

from gptkit.errors import Diverged, Interrupted
from gptkit.system.signals import StopRequest
from gptkit.training.batches import Batch, MicroBatch, StopEvaluation
from gptkit.training.checkpoints import RunState, newest_committed, read_state
from gptkit.training.job import CheckpointEvent, EvalEvent, Event, MicroBatching, NoticeEvent, Plan, StepEvent
from gptkit.training.loop import train
from gptkit.training.optimizers import OptimizerSet, build_optimizer
from gptkit.training.processes import make_accelerator
from gptkit.training.step import LossScale, Trainer

CHOICES = ["adamw", "muon", "openai-adam"]


class Recorder(OptimizerSet):
    """Keeps the gradients it is given and changes nothing."""

    def step(self, grad_scale: Tensor, found_inf: Tensor) -> None:
        self.gradients = {name: one.grad.clone() for name, one in self.names.items() if one.grad is not None}


def gradients_of_first_step(micro_batch: int) -> dict[str, Tensor]:
    model = toy(dropout=0.0).double()
    recorder = Recorder(dict(model.named_parameters()), [torch.optim.SGD(model.parameters())], 1.0)
    toy_train(Plan(steps=1, clip_norm=0.0), model=model, optimizer=recorder, micro_batch=micro_batch)
    return recorder.gradients


def test_the_loss_is_a_sum_over_the_count_of_all_micro_batches_for_any_split() -> None:
    """Rows supervise 1 to 6 tokens each, so that the mean of the micro-batches' means is another number."""
    whole = gradients_of_first_step(ROWS)
    for micro_batch in (7, 4, 3, 1):
        for name, gradient in gradients_of_first_step(micro_batch).items():
            torch.testing.assert_close(gradient, whole[name], atol=1e-12, rtol=0, msg=name)
    model = toy(dropout=0.0).double()
    for first, count in ((0, 4), (4, 4), (8, 2)):
        (toy_loss(model, rows(first, count), supervised(first, count)) / 3).backward()
    mean_of_means = model.wte.weight.grad
    assert mean_of_means is not None
    assert (mean_of_means - whole["wte.weight"]).norm() > 0.05 * whole["wte.weight"].norm()


def test_rows_come_at_step_1_multiples_evaluations_and_the_end_with_exact_losses() -> None:
    events = toy_train(
        Plan(steps=11, log_every=4, eval_every=3), model=toy(dropout=0.0), evaluate=lambda stop: {"val_loss": 2.5}
    )[2]
    rows_seen = [event for event in events if isinstance(event, StepEvent)]
    assert [row.step for row in rows_seen] == [1, 3, 4, 6, 8, 9, 11]
    assert [event.step for event in events if isinstance(event, EvalEvent)] == [3, 6, 9, 11]
    assert [row.step for row in rows_seen if row.evaluation == {"val_loss": 2.5}] == [3, 6, 9, 11]
    assert rows_seen[0].loss == pytest.approx(toy_loss(toy(0.0), rows(0, ROWS), supervised(0, ROWS)).item(), abs=1e-6)
    assert rows_seen[-1].tokens == supervised(0, 11 * ROWS)
    assert rows_seen[0].learning_rate == pytest.approx(1e-3 / 2)
    assert isinstance(events[-1], RunState)
    assert events[-1].tokens_per_second > 0


def test_micro_batches_may_count_tokens_apart_from_what_they_supervise() -> None:
    def batches(step: int) -> list[MicroBatch]:
        return [MicroBatch(0, supervised(0, 2), partial(rows, 0, 2), tokens=2 * LENGTH)]

    model = toy()
    optimizer = build_optimizer(model.named_parameters(), options())
    job = toy_job(Plan(steps=3), model, optimizer, micro_batching=MicroBatching(batches_of=lambda rows: batches))
    events = list(train(job, make_accelerator("cpu")))
    assert isinstance(events[-1], RunState)
    assert events[-1].tokens == 3 * 2 * LENGTH


def test_dropout_depends_on_seed_step_and_first_row_alone() -> None:
    def first_losses(seed: int) -> list[float]:
        torch.manual_seed(torch.seed())  # whatever the generator was at
        return [row["loss"] for row in step_rows(toy_train(Plan(steps=2, log_every=1, seed=seed))[2])]

    assert first_losses(1) == first_losses(1)
    assert first_losses(1)[0] != first_losses(2)[0]


class SyncCounter(TorchDispatchMode):
    """Counts what would make the host wait for a device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count = 0
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "nonzero"):
            monkeypatch.setattr(Tensor, name, self._counted(getattr(Tensor, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.count += 1
            return method(*arguments, **more)

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "local_scalar_dense" in str(func) or "nonzero" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_host_waits_for_the_device_at_rows_alone(
    choice: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy()
    optimizer = build_optimizer(model.named_parameters(), options(optimizer=choice))
    plan = Plan(steps=8, log_every=4, precision=precision)
    counts: dict[int, int] = {}

    def count_at(step: int) -> float:
        counts.setdefault(step, counter.count)
        return 1.0

    counter = SyncCounter(monkeypatch)
    job, accelerator = toy_job(plan, model, optimizer, schedule=count_at), make_accelerator("cpu")
    with counter:
        list(train(job, accelerator))
    silent = [counts[step + 1] - counts[step] for step in (2, 3, 5, 6, 7)]
    assert silent == [0] * 5
    assert counts[5] > counts[4]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_gradient_that_is_not_finite_never_reaches_weights_and_ends_the_run_naming_its_step(choice: str) -> None:
    seen: list[dict[str, Tensor]] = []
    model = toy()
    optimizer = build_optimizer(model.named_parameters(), options(optimizer=choice))
    step = 0

    def schedule(now: int) -> float:
        nonlocal step
        step = now
        seen.append(everything(model, optimizer))
        return 1.0

    def poisoned(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
        loss = toy_loss(model, batch, count)
        return loss * float("nan") if step == 3 and batch["tokens"].shape[0] == 4 else loss

    events: list[Event] = []
    job = toy_job(Plan(steps=20, log_every=5), model, optimizer, loss_function=poisoned, schedule=schedule)
    run = train(job, make_accelerator("cpu"))
    with pytest.raises(Diverged, match=r"\(step 3\)") as caught:
        events.extend(run)
    assert caught.value.exit_code == 5
    assert [event.step for event in events if isinstance(event, StepEvent)] == [1]
    assert all(torch.isfinite(tensor).all() for tensor in everything(model, optimizer).values())
    before_2, before_3, before_4, before_5 = seen[-4:]
    assert bits_equal(before_4, before_3)
    assert not bits_equal(before_3, before_2)
    assert not bits_equal(before_5, before_4)


def test_a_loss_that_is_not_finite_ends_the_run_even_if_its_gradient_is(tmp_path: Path) -> None:
    def infinite(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
        return toy_loss(model, batch, count) + float("inf")

    with pytest.raises(Diverged, match=r"\(step 1\)"):
        toy_train(Plan(steps=4), loss=infinite, checkpoint_directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_clipping_is_by_the_global_norm_over_all_micro_batches() -> None:
    model = toy(dropout=0.0)
    recorder = Recorder(dict(model.named_parameters()), [torch.optim.SGD(model.parameters())], 1.0)
    scales: list[float] = []
    recorder.step = lambda grad_scale, found_inf: scales.append(grad_scale.item())  # type: ignore[method-assign]
    events = toy_train(Plan(steps=1, clip_norm=0.01), model=model, optimizer=recorder)[2]
    norm = torch.stack([one.norm() for one in gradients_of_first_step(ROWS).values()]).norm().item()
    assert isinstance(events[0], StepEvent)
    assert events[0].grad_norm == pytest.approx(norm, rel=1e-5)
    assert scales == [pytest.approx(norm / 0.01, rel=1e-5)]


def test_fp16s_scale_halves_on_overflow_and_doubles_after_patience() -> None:
    scale = LossScale(torch.device("cpu"), dynamic=True)
    scale.load((8.0, 0.0))
    scale.update(torch.tensor(1.0))
    assert scale.as_numbers() == (4.0, 0.0)
    for _ in range(2000):
        scale.update(torch.tensor(0.0))
    assert scale.as_numbers() == (8.0, 0.0)


def test_fp16_skips_overflows_and_diverges_only_when_the_scale_is_used_up() -> None:
    def huge(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
        return toy_loss(model, batch, count) * 1e37  # finite, but not the square of its gradient

    with pytest.raises(Diverged, match=r"\(step 17\)"):  # 2^16 takes 16 halvings
        toy_train(Plan(steps=30, log_every=30, precision="fp16"), loss=huge)


@pytest.mark.parametrize(("choice", "precision"), [("adamw", "fp32"), ("muon", "bf16"), ("openai-adam", "fp16")])
def test_going_on_from_any_checkpoint_is_bit_for_bit_the_uninterrupted_run(
    choice: str, precision: str, tmp_path: Path
) -> None:
    every = {"log_every": 2, "eval_every": 4, "save_every": 2, "keep_checkpoints": 9}
    plan = Plan(steps=9, precision=precision, choices={"compile": False}, **every)  # type: ignore[arg-type]
    again = partial(toy_train, plan, evaluate=lambda should_stop: {"val_loss": 1.0}, choice=choice)
    model, optimizer, events = again(checkpoint_directory=tmp_path)
    expected, all_rows = everything(model, optimizer), step_rows(events)
    saved = [event for event in events if isinstance(event, CheckpointEvent)]
    assert [event.step for event in saved] == [2, 4, 6, 8, 9]
    for event in saved:
        model, optimizer, events = again(model=toy(seed=1), resume_from=event.path)
        assert bits_equal(everything(model, optimizer), expected)
        assert step_rows(events) == [row for row in all_rows if row["step"] > event.step]  # type: ignore[operator]
        assert isinstance(events[-1], RunState)
        assert (events[-1].step, events[-1].tokens) == (9, supervised(0, 9 * ROWS))
    state = read_state(saved[0].path)
    assert state.choices == {"compile": False}
    assert (state.parts["loss_scale"] is not None) == (precision == "fp16")


def test_a_stop_finishes_the_step_commits_and_says_how_to_go_on(tmp_path: Path) -> None:
    model, optimizer, events = toy_train(Plan(steps=8, log_every=3))
    expected, all_rows = everything(model, optimizer), step_rows(events)
    stop = StopRequest()

    def stopping(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
        if not list(tmp_path.glob("*")) and batch["tokens"].shape[0] == 2:  # the last micro-batch of step 1
            stop.ask(signal.SIGTERM)
        return toy_loss(model, batch, count)

    plan = Plan(steps=8, log_every=3)
    with pytest.raises(Interrupted, match="rerun the same command") as caught:
        toy_train(plan, loss=stopping, checkpoint_directory=tmp_path, stop=stop)
    assert caught.value.exit_code == 143
    found = newest_committed(tmp_path)
    assert found.path is not None
    assert found.path.name == "step-000001"
    model, optimizer, events = toy_train(plan, model=toy(seed=1), resume_from=found.path)
    assert bits_equal(everything(model, optimizer), expected)
    assert step_rows(events) == all_rows[1:]


def test_an_evaluation_cut_short_is_made_up_for_and_its_row_comes_once(tmp_path: Path) -> None:
    stop = StopRequest()

    def cut_short(should_stop: Callable[[], bool]) -> Mapping[str, float]:
        stop.ask(signal.SIGINT)
        if should_stop():
            raise StopEvaluation
        return {"val_loss": 1.0}

    plan = Plan(steps=4, log_every=1, eval_every=2)
    with pytest.raises(Interrupted) as caught:
        toy_train(plan, evaluate=cut_short, checkpoint_directory=tmp_path, stop=stop)
    assert caught.value.exit_code == 130
    found = newest_committed(tmp_path)
    assert found.path is not None
    assert read_state(found.path).last_row == 1
    events = toy_train(plan, evaluate=lambda should_stop: {"val_loss": 1.0}, resume_from=found.path)[2]
    whole = toy_train(plan, evaluate=lambda should_stop: {"val_loss": 1.0})[2]
    assert step_rows(events) == step_rows(whole)[1:]


def test_a_row_of_another_version_is_made_up_for() -> None:
    row = {name: 1.0 for name in ("step", "tokens", "loss", "learning_rate", "grad_norm", "tokens_per_second")}
    row |= {"elapsed_seconds": 2.0, "data_seconds": 0.0}  # all that the first version had
    assert StepEvent.from_row(row | {"skipped_steps": None, "of a later version": 3}).as_row() == row


class Seen:
    """What a trainer keeps: the losses that it was asked to store, and those that a checkpoint gave back."""

    def __init__(self) -> None:
        self.numbers, self.loaded = [0.5], []

    def as_numbers(self) -> list[float]:
        return self.numbers

    def load(self, numbers: list[float]) -> None:
        self.loaded = numbers


def test_what_a_trainer_keeps_is_in_the_checkpoint_by_a_row_of_its_parts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Seen] = []
    make = Trainer.__init__

    def with_part(self: Trainer, *arguments: Any, **more: Any) -> None:
        make(self, *arguments, **more)
        made.append(Seen())
        self.parts["seen"] = made[-1]  # type: ignore[assignment]

    before = toy_train(Plan(steps=2, save_every=1), checkpoint_directory=tmp_path / "before")
    assert before[2]
    monkeypatch.setattr(Trainer, "__init__", with_part)
    toy_train(Plan(steps=2, save_every=1), checkpoint_directory=tmp_path / "after")
    toy_train(Plan(steps=2), model=toy(), resume_from=tmp_path / "after" / "step-000001")
    toy_train(Plan(steps=2), model=toy(), resume_from=tmp_path / "before" / "step-000001")
    assert json.loads((tmp_path / "after" / "step-000001" / "state.json").read_text())["seen"] == [0.5]
    assert [part.loaded for part in made] == [[], [0.5], []]  # an older checkpoint has none


def numbers_of(part: object) -> dict[str, Any]:
    """Return the tensors and numbers that a trainer holds by itself, and through objects of its own module."""
    found: dict[str, Any] = {}
    for name, value in vars(part).items():
        if isinstance(value, Tensor | int | float):
            found[name] = value.tolist() if isinstance(value, Tensor) else value
        elif type(value).__module__ == Trainer.__module__ and not isinstance(value, nn.Module):
            found |= {f"{name}.{inner}": number for inner, number in numbers_of(value).items()}
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_trainer_holds_the_numbers_of_the_one_that_saved(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a trainer counts as it goes, and has no row among its parts, would start anew on resuming."""
    made: list[Trainer] = []
    make = Trainer.__init__

    def noted(self: Trainer, *arguments: Any, **more: Any) -> None:
        make(self, *arguments, **more)
        made.append(self)

    monkeypatch.setattr(Trainer, "__init__", noted)
    plan = Plan(steps=3, precision=precision, skip_spikes=True)
    toy_train(plan, checkpoint_directory=tmp_path)
    toy_train(plan, model=toy(), resume_from=tmp_path / "step-000003")
    saved, resumed = map(numbers_of, made)
    assert saved["spikes.seen"] == 3
    assert resumed == saved


def test_evaluation_runs_in_eval_mode_without_gradients_under_the_runs_precision() -> None:
    model = toy()
    dtypes = []

    def evaluate(should_stop: Callable[[], bool]) -> Mapping[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        dtypes.append(model.h[0][0](torch.ones(1, 8)).dtype)  # type: ignore[index]
        return {"val_loss": 1.0, "val_perplexity": math.inf}

    events = toy_train(Plan(steps=3, eval_every=1, precision="bf16"), model=model, evaluate=evaluate)[2]
    assert dtypes == [torch.bfloat16] * 3
    assert [row["val_perplexity"] for row in step_rows(events)] == [None] * 3  # JSON has no infinity
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_evaluation_that_is_not_finite_ends_the_run_before_it_is_saved(bad: float, tmp_path: Path) -> None:
    plan = Plan(steps=4, eval_every=2, save_every=1)
    with pytest.raises(Diverged, match="step 2"):
        toy_train(plan, evaluate=lambda should_stop: {"val_loss": bad}, checkpoint_directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_stop_asked_for_while_compiling_comes_before_the_next_step(tmp_path: Path) -> None:
    stop = StopRequest()

    class Compiling(Toy):
        def forward(self, tokens: Tensor) -> Tensor:
            if self.training:
                stop.ask(signal.SIGUSR2)
            return super().forward(tokens)

    def stopped(where: str, **more: Path) -> None:
        torch.manual_seed(0)
        plan = Plan(steps=3, compile=True)
        with pytest.raises(Interrupted) as caught:
            toy_train(plan, model=Compiling(), checkpoint_directory=tmp_path, stop=stop, **more)  # type: ignore[arg-type]
        assert (caught.value.exit_code, caught.value.where) == (128 + signal.SIGUSR2, where)

    stopped("before step 1")
    assert not list(tmp_path.iterdir())
    toy_train(Plan(steps=1, compile=True), checkpoint_directory=tmp_path)
    stopped("step 1 of 3 is saved", resume_from=tmp_path / "step-000001")
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_compiler_that_a_signal_to_the_process_group_ended_is_no_bug() -> None:
    stop = StopRequest()

    class Compiling(Toy):
        def forward(self, tokens: Tensor) -> Tensor:
            raise RuntimeError("g++: fatal error: Terminated signal terminated program cc1plus")

    with pytest.raises(RuntimeError, match="cc1plus"):
        toy_train(Plan(steps=3, compile=True), model=Compiling(), stop=stop)
    stop.ask(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        toy_train(Plan(steps=3, compile=True), model=Compiling(), stop=stop)
    assert caught.value.exit_code == 128 + signal.SIGTERM


def test_compiling_is_told_apart_and_left_out_of_the_rate() -> None:
    compiled: list[bool] = []

    class Compiling(Toy):
        shapes: ClassVar[set[torch.Size]] = set()

        def forward(self, tokens: Tensor) -> Tensor:
            if tokens.shape not in self.shapes:
                self.shapes.add(tokens.shape)
                compiled.append(self.training)
            return super().forward(tokens)

    plain = toy_train(Plan(steps=3, log_every=1), micro_batch=4)[2]
    torch.manual_seed(0)
    asked: list[nn.Module] = []
    model, plan = Compiling(), Plan(steps=3, log_every=1, compile=True)
    events = toy_train(plan, model=model, micro_batch=4, compile_blocks=asked.append)[2]
    assert asked == [model]
    assert isinstance(events[0], NoticeEvent)
    assert compiled == [True, True]  # 4 and 2 rows, before the first step
    assert isinstance(events[-1], RunState)
    assert events[-1].compile_seconds > 0
    assert step_rows(events) == step_rows(plain)  # the warm-up leaves no trace
