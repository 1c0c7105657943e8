"""Runs that get a signal in a chosen phase: the process sends it itself, so that it comes exactly there."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from children import Child, command, start
from forked_ranks import fork_ranks
from small_runs import checkpoints_of

# Phases that a run goes through, and how many calls of each a small run makes at least.
PHASES = {"tokenization": 1, "step": 20, "accumulation": 20, "evaluation": 12, "save": 40, "writing the model": 1}
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGUSR2", "SIGXCPU", "SIGQUIT")
OF_SAVES = ("write_durably", "write_atomically", "sync_directory", "rename", "remove_directory", "make_directory")
HANG = 60.0  # seconds from a signal to the end


@dataclass(frozen=True)
class Shot:
    """A signal at the `at`-th call in a phase, before or after it; rank `rank` sends it, to itself or its launcher."""

    phase: str
    name: str
    at: int
    after: bool
    rank: int = 0
    to_launcher: bool = False

    @property
    def exit_code(self) -> int:
        return 128 + int(getattr(signal, self.name))


def random_shot(chance: random.Random, phase: str, name: str, processes: int) -> Shot:
    to_launcher = processes > 1 and (phase in ("tokenization", "writing the model") or chance.random() < 0.5)
    # What only the main process does only it can be interrupted in.
    rank = 0 if phase in ("tokenization", "save", "writing the model") else chance.randrange(processes)
    calls = PHASES[phase] // (processes if phase in ("accumulation", "evaluation") else 1)
    return Shot(phase, name, chance.randrange(calls), chance.random() < 0.5, rank, to_launcher)


@dataclass(frozen=True)
class Shooting:
    """How a run took a signal: `steps` were taken when it came, `seconds` later the process was gone."""

    shot: Shot
    child: Child
    code: int
    steps: int
    seconds: float


def whole(words: list[str]) -> None:
    """Be a run that nobody interrupts, alike in all else."""
    _many_evaluation_batches()
    fork_ranks(lambda rank: None)
    command(words)


def interrupted(words: list[str], shot: Shot, note: str) -> None:
    """Be a run that gets the signal; the time and the steps taken by then go into the file `note`."""
    _many_evaluation_batches()
    if "--num-processes" in words:
        fork_ranks(lambda rank: _aim(shot, Path(note)) if rank == shot.rank else None)
    else:
        _aim(shot, Path(note))
    command(words)


def shoot(words: Sequence[str], shot: Shot, *, log: Path, cache: Path | None = None) -> Shooting:
    """Run a command line until the signal has ended it; raises TimeoutError if that takes a minute."""
    note = log.with_name(log.name + ".note")
    changes = {"GPTKIT_CACHE": str(cache)} if cache else {}
    child = start(interrupted, list(words), shot, str(note), log=log, environment=changes)
    code = child.wait(2 * HANG)
    ended = time.monotonic()
    assert note.exists(), f"no call {shot.at} in {shot.phase}: {child.err}"
    sent = json.loads(note.read_text())
    return Shooting(shot, child, code, sent["steps"], ended - sent["time"])


def faults_of(one: Shooting, run: Path) -> list[str]:
    """Return what was not as promised: the exit code, one line that says how to go on, a checkpoint of that step."""
    shot, lines = one.shot, one.child.error_lines
    found = []
    if one.code != shot.exit_code:
        found.append(f"exit code {one.code}")
    if len(lines) != 1 or not lines[0].startswith("error: interrupted"):
        found.append(f"says {lines or one.child.err[-300:]}")
    if one.seconds > HANG:
        found.append(f"took {one.seconds:.0f} s")
    if shot.phase in ("tokenization", "writing the model"):
        return found
    committed = [int(path.name.removeprefix("step-")) for path in checkpoints_of(run)]
    if not committed or committed[-1] not in (one.steps, one.steps + 1):
        found.append(f"committed {committed} after step {one.steps}")
    if lines and f"gptkit {'pretrain' if 'pretrain' in str(run) else 'finetune'} --resume {run}" not in lines[0]:
        found.append(f"no line to resume with: {lines[0]}")
    return found


def _many_evaluation_batches() -> None:
    from gptkit.pretrain import job
    from gptkit.tasks import head_outputs

    job.VALIDATION_TOKENS = head_outputs.PREDICTION_TOKENS = 16


def _aim(shot: Shot, note: Path) -> None:
    """Count the calls in the phase of a shot, and send it when its turn comes."""
    from gptkit.training import step

    state = {"steps": 0, "calls": 0}

    def fire() -> None:
        state["calls"] += 1
        if state["calls"] - 1 != shot.at:
            return
        note.write_text(json.dumps({"time": time.monotonic(), "steps": state["steps"]}))
        os.kill(os.getppid() if shot.to_launcher else os.getpid(), getattr(signal, shot.name))

    def taken(*_: object) -> None:
        state["steps"] += 1

    _wrap(step.Trainer, "update", after=taken)
    for owner, name, is_meant in _calls_of(shot.phase):
        _wrap(owner, name, **{"after" if shot.after else "before": _if(is_meant, fire)})


def _calls_of(phase: str) -> Iterator[tuple[Any, str, Callable[..., bool]]]:
    """Yield what a phase calls, and which of these calls are meant, by their arguments."""
    from gptkit.finetune import command as finetune
    from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
    from gptkit.model.modeling_gpt import GPTForCausalLM
    from gptkit.pretrain import command as pretrain
    from gptkit.system import files
    from gptkit.tasks import encoding
    from gptkit.text import blocks
    from gptkit.training import loop, step

    if phase == "tokenization":
        for owner in (blocks, encoding):
            yield owner, "encode_documents", _always
    elif phase == "step":
        yield step.Trainer, "update", _always
    elif phase == "accumulation":
        yield step.Trainer, "backward", lambda self, work, share, batch: not share.is_last
    elif phase == "evaluation":
        for model in (GPTForCausalLM, GPTDoubleHeadsModel):
            yield model, "forward", lambda self, *_, **__: not self.training
    elif phase == "save":
        saving = _marked(loop.checkpoints, "write")
        for name in OF_SAVES:
            yield files, name, lambda *_, **__: bool(saving)
    else:
        for owner in (pretrain, finetune):
            yield owner, "write_model", _always


def _always(*_: object, **__: object) -> bool:
    return True


def _if(is_meant: Callable[..., bool], act: Callable[[], None]) -> Callable[..., None]:
    return lambda *arguments, **named: act() if is_meant(*arguments, **named) else None


def _wrap(
    owner: Any, name: str, *, before: Callable[..., None] = _always, after: Callable[..., None] = _always
) -> None:
    function = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        before(*arguments, **named)
        result = function(*arguments, **named)
        after(*arguments, **named)
        return result

    setattr(owner, name, wrapped)


def _marked(owner: Any, name: str) -> list[bool]:
    """Return a list that is empty but while the function runs."""
    marks: list[bool] = []
    function = getattr(owner, name)

    @contextmanager
    def marking() -> Iterator[None]:
        marks.append(True)
        try:
            yield
        finally:
            marks.pop()

    def wrapped(*arguments: Any, **named: Any) -> Any:
        with marking():
            return function(*arguments, **named)

    setattr(owner, name, wrapped)
    return marks
