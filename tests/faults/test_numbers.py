"""NaN and infinity, leaps of the loss, and memory that runs out: what reaches the weights, and what the run says."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from children import command, start
from forked_ranks import fork_ranks
from safetensors.torch import load_file
from signalled import Shot, interrupted, whole
from small_runs import SmallRuns, checkpoints_of, rows_of
from torch import Tensor, nn

from figures import Count, Report
from gptkit.errors import Diverged
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.pretrain.job import language_modeling_loss, pretraining_batches
from gptkit.text.blocks import TrainingBlocks
from gptkit.training.batches import Batch
from gptkit.training.job import Event, MicroBatching, Plan, StepEvent, TrainingJob
from gptkit.training.loop import train
from gptkit.training.optimizers import OptimizerSet, build_optimizer
from gptkit.training.options import TrainingOptions
from gptkit.training.processes import make_accelerator

SEED, LENGTH, ROWS = 15, 8, 4


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Run:
    """A run of a tiny model in this process; `spoil(step, micro_batch, model)` changes a micro-batch's loss."""

    plan: Plan
    spoil: Callable[[int, int, nn.Module], Callable[[Tensor], Tensor]]
    before_step: Callable[[int, nn.Module], None] = lambda step, model: None
    seed: int = 0
    seen: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    step: int = 0
    micro_batch: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.model = GPTForCausalLM(GPTConfig(vocab_size=17, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2))
        self.optimizer = build_optimizer(self.model.named_parameters(), TrainingOptions(learning_rate=1e-3))

    def events(self, **more: Any) -> Iterator[Event]:
        ids = np.random.default_rng(self.seed).integers(0, 17, 2000).astype(np.uint16)
        blocks = TrainingBlocks(ids, LENGTH, self.seed)
        batches = pretraining_batches(blocks, sequence_length=LENGTH, rows_per_step=ROWS, micro_batch=2)
        job = TrainingJob(
            model=self.model,
            loss_function=self.loss,
            micro_batching=MicroBatching(batches_of=lambda rows: batches),
            optimizer=self.optimizer,
            schedule=self.rate,
            plan=self.plan,
        )
        return train(job, make_accelerator("cpu"), **more)

    def rate(self, step: int) -> float:
        self.step, self.micro_batch = step, 0
        self.before_step(step, self.model)
        return 1.0

    def loss(self, model: nn.Module, batch: Batch, count: Tensor) -> Tensor:
        change = self.spoil(self.step, self.micro_batch, model)
        self.micro_batch += 1
        return change(language_modeling_loss(model, batch, count))

    def state(self) -> dict[str, Tensor]:
        return state_of(self.model, self.optimizer)


def state_of(model: nn.Module, optimizer: OptimizerSet) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in {**model.state_dict(), **optimizer.state_tensors()}.items()}


def unspoilt(step: int, micro_batch: int, model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda loss: loss


# R15: what is not finite

PLACES = ("loss", "gradient", "weights", "input", "weights after the step")


def poisoned(place: str, step: int, micro_batch: int, bad: float, plan: Plan, seed: int) -> Run:
    """Return a run with one value that is not finite."""

    def spoil(now: int, turn: int, model: nn.Module) -> Callable[[Tensor], Tensor]:
        if (now, turn) != (step, micro_batch):
            return lambda loss: loss
        if place == "loss":
            return lambda loss: loss * bad
        if place == "gradient":
            return with_bad_gradient
        return lambda loss: loss

    def with_bad_gradient(loss: Tensor) -> Tensor:
        loss.register_hook(lambda gradient: gradient * bad)
        return loss

    run = Run(plan, spoil, seed=seed)

    def note(now: int, model: nn.Module) -> None:
        if place == "weights" and now == step:
            parameters = list(model.parameters())
            one = parameters[seed % len(parameters)].data.view(-1)
            one[seed % len(one)] = bad
        run.seen[now] = run.state()

    def spoil_input(module: nn.Module, _: object, output: Tensor) -> Tensor:
        if place != "input" or (run.step, run.micro_batch - 1) != (step, micro_batch):
            return output
        output = output.clone()
        output[0, seed % LENGTH, seed % 8] = bad
        return output

    run.before_step = note
    run.model.transformer.wte.register_forward_hook(spoil_input)
    if place == "weights after the step":  # found at the save, before anything is written
        run.optimizer.step = _then(run.optimizer.step, lambda: _overwrite(run, step, bad))  # type: ignore[method-assign]
    return run


def _then(function: Callable[..., None], act: Callable[[], None]) -> Callable[..., None]:
    def both(*arguments: Any) -> None:
        function(*arguments)
        act()

    return both


def _overwrite(run: Run, step: int, bad: float) -> None:
    if run.step == step:
        next(iter(run.model.parameters())).data.view(-1)[0] = bad


def faults_of(run: Run, place: str, step: int, folder: Path) -> list[str]:
    """Return what was not as promised of a run that must end because of `step`."""
    found, rows = [], []
    try:
        for event in run.events(checkpoint_directory=folder):
            rows += [event] if isinstance(event, StepEvent) else []
        found.append("ran to its end")
    except Diverged as error:
        if error.where != f"step {step}" or error.exit_code != 5:
            found.append(f"said {error}")
    if any(not math.isfinite(row.loss) or row.loss == 0.0 for row in rows):
        found.append(f"logged {[row.loss for row in rows]}")
    if place != "weights after the step":
        after = run.seen.get(step + 1) or run.state()
        found += [f"{name} was updated" for name, one in run.seen[step].items() if not _same(one, after[name])]
    for path in folder.glob("step-*/*.safetensors"):
        if not all(one.isfinite().all() for one in load_file(path).values()):
            found.append(f"{path} is not finite")
    newest = max((int(path.parent.name[5:]) for path in folder.glob("step-*/MANIFEST.json")), default=0)
    if newest != (step - 1) // run.plan.save_every * run.plan.save_every:  # type: ignore[operator]
        found.append(f"the newest checkpoint is of step {newest}")
    return found


def _same(left: Tensor, right: Tensor) -> bool:
    return torch.equal(left.view(torch.int32), right.view(torch.int32))


def test_what_is_not_finite_never_reaches_weights_or_a_checkpoint(tmp_path: Path, count: Count, figure: Report) -> None:
    total, failures = count(25, 200), []
    for trial in range(total):
        chance = random.Random(f"{SEED} {trial}")
        place, bad = PLACES[trial % len(PLACES)], chance.choice([math.nan, math.inf, -math.inf])
        save_every = 1 if place == "weights after the step" else chance.randint(1, 4)
        plan = Plan(steps=14, log_every=chance.randint(1, 5), save_every=save_every, keep_checkpoints=99)
        step = chance.randint(1, 10)
        run = poisoned(place, step, chance.randrange(2), bad, plan, trial)
        failures += [f"{trial}, {bad} in {place}: {one}" for one in faults_of(run, place, step, tmp_path / str(trial))]
    outcome = (
        f"{total - len(failures)} ended naming the step, weights and moments untouched, checkpoints finite, no 0.0"
    )
    figure("R15", "NaN, inf, -inf in loss, gradient, weights, input", total, outcome, seed=SEED, bound="100%")
    assert not failures, "\n".join(failures)


def test_a_loop_that_updates_all_the_same_would_be_noticed(tmp_path: Path) -> None:
    run = poisoned("gradient", 5, 0, math.nan, Plan(steps=9, log_every=3, save_every=2, keep_checkpoints=9), 0)
    step = run.optimizer.step
    run.optimizer.step = lambda scale, held: step(scale, torch.zeros_like(held))  # type: ignore[method-assign]
    assert any("was updated" in one for one in faults_of(run, "gradient", 5, tmp_path))


def poisoning(words: list[str], rank: int, step: int) -> NoReturn:
    """Be a launcher of two processes, one of which gets a loss that is no number."""

    def prepare(mine: int) -> None:
        from gptkit.training.step import Trainer

        backward = Trainer.backward

        def spoilt(self: Trainer, work: Any, share: Any, batch: Any) -> Tensor:
            is_bad = mine == rank and work.step == step
            objective, self.objective = self.objective, _Bad(self.objective) if is_bad else self.objective
            loss = backward(self, work, share, batch)
            self.objective = objective
            return loss

        Trainer.backward = spoilt  # type: ignore[method-assign]

    fork_ranks(prepare)
    command(words)


class _Bad(nn.Module):
    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def no_sync(self) -> Any:
        return self.objective.no_sync()  # type: ignore[operator]

    def forward(self, *arguments: Any) -> Tensor:
        loss: Tensor = self.objective(*arguments)
        return loss * math.nan


def test_one_process_of_two_with_a_loss_that_is_no_number_ends_both(
    small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance, total = random.Random(SEED), count(1, 20)
    for trial in range(total):
        step, out = chance.randint(2, 18), tmp_path / str(trial) / "run"
        out.parent.mkdir()
        words = small.pretrain(out, num_processes=2, micro_batch=1, log_every=chance.randint(1, 5))
        child = start(poisoning, words, trial % 2, step, log=out.parent / "log")
        assert child.wait(60) == 5, child.err
        assert len(child.error_lines) == 1, child.err
        assert f"(step {step})" in child.error_lines[0]
        note = json.loads((out / "diverged.json").read_text())
        assert note["step"] == step
        assert note["first_rows"] == [4 * (step - 1) + row for row in range(4)]
        newest = checkpoints_of(out)[-1].name if checkpoints_of(out) else None
        assert note["newest_checkpoint"] == newest
        assert all(math.isfinite(row["loss"]) and row["loss"] for row in rows_of(out))
        for path in out.glob("checkpoints/*/*.safetensors"):
            assert all(one.isfinite().all() for one in load_file(path).values())
    outcome = f"{total} ended with 5 and one line that names the step; diverged.json has its rows"
    figure("R15", "NaN in the loss of one of two processes", total, outcome, seed=SEED, bound="100%")


# R16: spikes


def leaping(at: set[int], factor: float, plan: Plan) -> Run:
    return Run(plan, lambda step, turn, model: lambda loss: loss * factor if step in at else loss)


def skipped_steps(events: Iterator[Event]) -> set[int]:
    found, before = set(), 0
    for event in events:
        if isinstance(event, StepEvent):
            assert event.skipped_steps is not None
            found |= {event.step} if event.skipped_steps > before else set()
            before = event.skipped_steps
    return found


@pytest.mark.slow
def test_spikes_are_skipped_and_hardly_anything_else(count: Count, figure: Report) -> None:
    steps, spikes = count(400, 100_000), count(4, 100)
    chance = random.Random(SEED)
    at = set(chance.sample(range(150, steps), spikes))
    run = leaping(at, 20.0, Plan(steps=steps, log_every=1, skip_spikes=True))
    skipped = skipped_steps(run.events())
    caught, false = len(at & skipped), len(skipped - at)
    outcome = f"{caught} skipped; {false} of {steps - spikes:,} other steps were"
    figure("R16", "losses 20 times as high", spikes, outcome, seed=SEED, bound="95%, 1 false in 10,000 steps")
    assert caught >= 0.95 * spikes
    assert false <= max(1, steps // 10_000)


def test_a_skipped_step_changes_nothing_and_a_resumed_run_skips_the_same(tmp_path: Path) -> None:
    plan = Plan(steps=170, log_every=10, save_every=140, skip_spikes=True, keep_checkpoints=9)
    run = leaping({135, 150}, 20.0, plan)
    run.before_step = lambda step, model: run.seen.update({step: run.state()}) if step in (150, 151) else None
    rows = [event.as_row() for event in run.events(checkpoint_directory=tmp_path) if isinstance(event, StepEvent)]
    assert all(_same(one, run.seen[151][name]) for name, one in run.seen[150].items())
    assert rows[-1]["skipped_steps"] == 2
    resumed = leaping({135, 150}, 20.0, plan)
    again = [
        event.as_row() for event in resumed.events(resume_from=tmp_path / "step-000140") if isinstance(event, StepEvent)
    ]
    assert [(row["loss"], row["skipped_steps"]) for row in again] == [
        (row["loss"], row["skipped_steps"]) for row in rows if row["step"] > 140
    ]
    assert all(_same(one, resumed.state()[name]) for name, one in run.state().items())


def test_a_run_that_skips_everything_ends() -> None:
    run = leaping(set(range(140, 400)), 20.0, Plan(steps=400, log_every=25, skip_spikes=True))
    with pytest.raises(Diverged, match=r"steps in a row were skipped as spikes \(step 140\)"):
        list(run.events())


# R17: memory


def short_of_memory(words: list[str], most: int) -> NoReturn:
    """Be gptkit on a device that has the memory for `most` rows a forward pass."""
    _shorten_memory(most)
    command(words)


def short_and_interrupted(words: list[str], most: int, shot: Shot, note: str) -> None:
    _shorten_memory(most)
    interrupted(words, shot, note)


def _shorten_memory(most: int) -> None:
    from gptkit.training import loop
    from gptkit.training.step import Trainer

    backward = Trainer.backward

    def refusing(self: Trainer, work: Any, share: Any, batch: Batch) -> Tensor:
        if len(batch["input_ids"]) > most:
            raise torch.OutOfMemoryError(f"CUDA out of memory: no room for {len(batch['input_ids'])} rows")
        return backward(self, work, share, batch)

    Trainer.backward = refusing  # type: ignore[method-assign]
    loop.may_run_out = lambda device: True


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_run_short_of_memory_is_the_run_with_a_smaller_micro_batch(
    kind: str, small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance, total = random.Random(f"{SEED} {kind}"), count(1, 10)
    many = {"tokens_per_step": 16 * 16} if kind == "pretrain" else {"batch_size": 16, "epochs": 5}
    for trial in range(total):
        most, stop = chance.choice([1, 2, 3, 5, 8, 15]), chance.randint(2, 8)
        fitting = max(size for size in (1, 2, 4, 8, 16) if size <= most)
        folder = tmp_path / str(trial)
        runs = {name: folder / name / "run" for name in ("manual", "short")}
        for out in runs.values():
            out.parent.mkdir(parents=True)
        manual = start(whole, small.words(kind, runs["manual"], **{**many, "micro_batch": fitting}), log=folder / "a")
        words = small.words(kind, runs["short"], **{**many, "micro_batch": None})
        shot = Shot("step", "SIGTERM", stop, True)
        first = start(short_and_interrupted, words, most, shot, str(folder / "note"), log=folder / "b")
        assert first.wait() == 143, first.err
        assert (
            f"using {fitting}, with the same tokens per step; a different micro-batch changes the dropout masks"
            in first.err
        )
        second = start(whole, words, log=folder / "c")  # with all the memory, it keeps to what was chosen
        assert (second.wait(), manual.wait()) == (0, 0), second.err + manual.err
        assert rows_of(runs["short"]) == rows_of(runs["manual"])
        weights = [(run / "model" / "model.safetensors").read_bytes() for run in runs.values()]
        assert weights[0] == weights[1]
    outcome = f"{total} halved until it fitted: tokens of a step, losses and weights of the manual setting, resumed too"
    figure("R17", f"allocator errors in {kind}", total, outcome, seed=SEED, bound="100%, 1e-6")


def test_not_even_one_row_is_one_line(small: SmallRuns, tmp_path: Path) -> None:
    child = start(short_of_memory, small.pretrain(tmp_path / "run"), 0, log=tmp_path / "log")
    assert child.wait() == 6, child.err
    assert child.error_lines == [line for line in child.error_lines if "even with a micro-batch of 1" in line] != []


def test_a_gpu_short_of_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str], figure: Report) -> None:
    fault = "a real GPU with less memory than the first micro-batch needs"
    if not torch.cuda.is_available():
        figure("R17", fault, 0, "not run: no GPU")
        pytest.skip("needs a CUDA device")
    from gptkit.cli.main import main

    text = tmp_path / "text.txt"
    text.write_text("".join(f"{i} green bottles, hanging on wall number {i * i};\n" for i in range(20_000)))
    flags = (
        "--model gpt2-small --tokenizer bpe:300 --steps 3 --tokens-per-step 65536 --sequence-length 1024 --log-every 1"
    )
    words = ["pretrain", str(text), *flags.split(), "--device", "cuda", "--compile", "off", "--precision", "fp32"]
    torch.cuda.set_per_process_memory_fraction(12e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        assert main([*words, "--micro-batch", "64", "--out", str(tmp_path / "short")]) == 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    said = capsys.readouterr().err
    fitting = int(said.partition("per forward pass: using ")[2].split(",")[0])
    assert main([*words, "--micro-batch", str(fitting), "--out", str(tmp_path / "manual")]) == 0
    ours, theirs = rows_of(tmp_path / "short"), rows_of(tmp_path / "manual")
    assert [row["tokens"] for row in ours] == [65536, 2 * 65536, 3 * 65536]
    apart = max(abs(one["loss"] / other["loss"] - 1) for one, other in zip(ours, theirs, strict=True))
    outcome = f"64 sequences became {fitting}; losses within {apart:.1e} of those with --micro-batch {fitting}"
    figure("R17", fault, 1, outcome, bound="1e-6 in fp32")
    assert apart <= 1e-6
