"""Checkpoints and snapshots that are whole or not there: `checkpoints/step-000100/`, committed by MANIFEST.json.

Order of a save: every file written and synced, the directory synced, the manifest renamed into place, its directory
synced, and only then older checkpoints removed, but never the best. A committed directory is never written to again.
What the manifest vouches for: see system/run_layout.py. Where processes shard the weights, each writes the rows that it
keeps, model-00001-of-00002.safetensors and so on; any number of processes reads them again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

import gptkit
from gptkit.errors import AGAIN, GptkitError, InputError, UsageError
from gptkit.system import files
from gptkit.system.run_layout import (
    MANIFEST,
    WEIGHTS,
    FileRecord,
    all_steps,
    defect,
    directory_name,
    foreign_schema,
    is_committed,
    record_of,
    recorded_names,
    step_of,
    written_by,
)
from gptkit.training.checkpoint_files import (
    SavedTensors,
    begin,
    commit,
    discard,
    remove_discarded,
    remove_leftovers,
    rows_beside,
    safetensors_chunks,
)
from gptkit.training.optimizers import OptimizerSet
from gptkit.training.processes import on_every_process, on_main_process
from gptkit.training.sharding import Sharding

OPTIMIZER, STATE = "optimizer", "state.json"
STATE_SCHEMA = "gptkit.state/1"  # also of a state.json that names none
DAMAGED = "damaged"
CUT_OFF = f"no {MANIFEST}: a save that was cut off"
DECAYED = "its learning rate had begun to decay for fewer --steps"


@dataclass
class RunState:
    """The numbers of a checkpoint; seconds and tokens count from the run's start over all attempts.

    `unfinished_row` is the row of `step` whose evaluation a signal cut short; `best_step` the step of the best
    evaluation so far, `best_value`. `identity` must be the same on resuming, `choices` are for the caller to take up
    again. `parts` are the trainer's, by name, beside these in state.json. All have defaults: a checkpoint of an older
    version lacks what was added since.
    """

    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    compile_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    unfinished_row: dict[str, float] | None = None
    best_step: int | None = None
    best_value: float | None = None
    identity: dict[str, str] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def last_row(self) -> int:
        """Return the last step whose row is not written again after resuming from here."""
        return self.step if self.unfinished_row is None else self.step - 1

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.train_seconds if self.train_seconds else 0.0


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint, if any, and (directory, reason) of every newer one that was rejected."""

    path: Path | None
    rejected: tuple[tuple[Path, str], ...] = ()

    def lines(self) -> list[str]:
        """Return one line per rejected checkpoint for the log."""
        instead = f"resuming from {self.path.name}" if self.path else "starting from step 0"
        return [f"{path} is not used: {reason}; {instead}" for path, reason in self.rejected]


@dataclass(frozen=True)
class TrainState:
    """What a process has of weights and moments: all of them, or its rows where they are sharded."""

    model: nn.Module
    optimizer: OptimizerSet
    sharding: Sharding | None = None

    def weights(self) -> Mapping[str, Tensor]:
        return model_tensors(self.model) if self.sharding is None else self.sharding.locals

    def file_name(self, stem: str) -> str:
        if self.sharding is None:
            return f"{stem}.safetensors"
        return f"{stem}-{self.sharding.index + 1:05d}-of-{self.sharding.count:05d}.safetensors"


def write(
    directory: Path,
    train_state: TrainState,
    state: RunState,
    *,
    accelerator: Accelerator,
    keep: int = 2,
    keep_step: int | None = None,
) -> Path:
    """Commit the checkpoint of `state.step` under `directory`, then `prune` it.

    Every process calls this; the main one alone writes, unless the weights are sharded. Raises OutOfResources when
    space runs out, InputError when the directory cannot be written; committed checkpoints are untouched then.
    """
    path = directory / directory_name(state.step)
    writes = accelerator.is_main_process or train_state.sharding is not None
    with files.translate_os_errors(f"saving {path.name}", fix=AGAIN):
        on_main_process(accelerator, lambda: begin(path))
        try:
            parts = on_every_process(accelerator, lambda: _write_part(path, train_state) if writes else [])
            records = [record for part in parts for record in part]
            on_main_process(accelerator, lambda: _commit(path, state, records))
        except (OSError, GptkitError):
            if accelerator.is_main_process:
                remove_leftovers(path)
            raise
        on_main_process(accelerator, lambda: prune(directory, keep, keep_step))
    return path


def _write_part(path: Path, train_state: TrainState) -> list[FileRecord]:
    tensors = {WEIGHTS: train_state.weights(), OPTIMIZER: train_state.optimizer.state_tensors()}
    return [
        files.write_durably(path / train_state.file_name(stem), safetensors_chunks(named))
        for stem, named in tensors.items()
    ]


def _commit(path: Path, state: RunState, records: list[FileRecord]) -> None:
    numbers = dataclasses.asdict(state)
    content = {"schema": STATE_SCHEMA, **numbers.pop("parts"), **numbers}
    state_text = json.dumps(content, indent=1, sort_keys=True)
    records = [*records, files.write_durably(path / STATE, [state_text.encode()])]
    rows = rows_beside(path)
    commit(path, state.step, records, record_of(rows) if rows.exists() else None)


def write_snapshot(directory: Path, model: nn.Module, step: int, *, accelerator: Accelerator) -> None:
    """Commit the whole weights of `model` as the snapshot of `step`; every process calls this, the main one writes.

    It comes before the checkpoint of its step: a run that resumes has all snapshots up to its checkpoint, and writes
    the later ones again. They are never pruned. Raises OutOfResources when space runs out, InputError when the
    directory cannot be written.
    """
    path = directory / directory_name(step)

    def write_here() -> None:
        if is_committed(path):  # an earlier attempt wrote the same weights
            return
        begin(path)
        try:
            weights = safetensors_chunks(model_tensors(model))
            commit(path, step, [files.write_durably(path / f"{WEIGHTS}.safetensors", weights)])
        except (OSError, GptkitError):
            remove_leftovers(path)
            raise

    with files.translate_os_errors(f"saving {directory.name}/{path.name}", fix=AGAIN):
        on_main_process(accelerator, write_here)


def drop_snapshots_after(directory: Path, step: int) -> None:
    """Remove the snapshots after `step` and what is left of removals."""
    remove_discarded(directory)
    for path in all_steps(directory):
        if step_of(path) > step:
            discard(path)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return weights and persistent buffers by name, tied ones once under their first name."""
    first_names: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        first_names.setdefault(id(tensor), name)
    return {name: state[name] for name in first_names.values()}


def newest_committed(directory: Path, continues: Callable[[RunState], bool] = lambda state: True) -> Found:
    """Return the newest checkpoint whose every byte verifies and that `continues` takes, falling back to older ones.

    The newest alone may lack a manifest (a save was cut off); with nothing else there, the run starts over and says so.
    An older one without is damaged, whether it is needed or not.
    Raises InputError naming each when there are checkpoints and none can be used, and for one of another version.
    """
    rejected: list[tuple[Path, str]] = []
    candidates = all_steps(directory)
    for number, path in enumerate(candidates, 1):
        if not is_committed(path):
            rejected.append((path, f"{MANIFEST} is missing" if rejected else CUT_OFF))
        elif schema := foreign_schema(path):
            raise _other_version(path, schema)
        elif (reason := defect(path)) is not None:
            rejected.append((path, reason))
        elif not continues(read_state(path)):
            rejected.append((path, DECAYED))
        else:
            older = [(other, f"{MANIFEST} is missing") for other in candidates[number:] if not is_committed(other)]
            return Found(path, (*rejected, *older))
    if all(reason == CUT_OFF for _, reason in rejected):
        return Found(None, tuple(rejected))
    reasons = "; ".join(f"{path.name}: {reason}" for path, reason in rejected)
    raise InputError(
        f"no checkpoint can be used: {reasons}",
        where=str(directory),
        fix="restore one, or start a new run with another --out",
    )


def quarantine(found: Found) -> None:
    """Make room to resume: damaged checkpoints are moved to `damaged/`, others that are not used are removed."""
    for path, reason in found.rejected:
        if reason in (CUT_OFF, DECAYED):
            discard(path)
            continue
        shelf = path.parent / DAMAGED
        if not shelf.exists():
            files.make_directory(shelf)
        taken = len(list(shelf.glob(f"{path.name}*")))
        files.rename(path, shelf / (f"{path.name}-{taken}" if taken else path.name))


def prune(directory: Path, keep: int, keep_step: int | None = None) -> None:
    """Remove committed checkpoints but for the newest `keep`, the best step that any of these names and `keep_step`."""
    remove_discarded(directory)
    committed = [path for path in all_steps(directory) if is_committed(path)]
    kept: set[int | None] = {keep_step}
    for path in committed[:keep]:
        with contextlib.suppress(InputError):  # one that cannot be read knows none
            kept.add(read_state(path).best_step)
    for path in committed[keep:]:
        if step_of(path) not in kept:
            discard(path)


def read_state(path: Path) -> RunState:
    """Return the scalars of a verified checkpoint; InputError for those of another version."""
    try:
        values = json.loads((path / STATE).read_text())
        schema = values.pop("schema", STATE_SCHEMA)
        if schema == STATE_SCHEMA:
            own = {field.name for field in dataclasses.fields(RunState)}
            parts = {name: value for name, value in values.items() if name not in own}
            return RunState(**{name: value for name, value in values.items() if name in own}, parts=parts)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{STATE} cannot be read: {error}", where=str(path), fix="use another checkpoint") from error
    raise _other_version(path, schema)


def _other_version(path: Path, schema: str) -> InputError:
    own = f"gptkit {gptkit.__version__} cannot read {schema}"
    fix = f"resume with {written_by(path)}, or start a new run with another --out"
    return InputError(f"the checkpoint was written by {written_by(path)}; {own}", where=str(path), fix=fix)


def refuse_other_identity(path: Path, identity: Mapping[str, str]) -> None:
    """Raise UsageError naming what differs between the run of a verified checkpoint and this one, old and new."""
    saved = read_state(path).identity
    if unrecorded := sorted(identity.keys() - saved.keys()):
        message = f"the checkpoint is of an earlier version, which did not record {', '.join(unrecorded)}"
        fix = "finish the run with that version, or start a new run with another --out"
        raise UsageError(message, where=str(path), fix=fix)
    changes = [
        f"{name} was {saved.get(name, 'unset')}, is {identity.get(name, 'unset')}"
        for name in sorted(saved.keys() | identity.keys())
        if saved.get(name) != identity.get(name)
    ]
    if changes:
        fix = "restore the old values, or start a new run with another --out"
        raise UsageError(f"the checkpoint belongs to another run: {'; '.join(changes)}", where=str(path), fix=fix)


def load(path: Path, train_state: TrainState) -> RunState:
    """Take weights, moments and scalars from a verified checkpoint.

    Raises InputError when its tensors are not the model's.
    """
    _take_weights(path, train_state.weights(), train_state.sharding)
    saved = SavedTensors(tensor_paths(path, OPTIMIZER))
    try:
        moments = {key: _own_rows(saved, key, key.rpartition("/")[0], train_state.sharding) for key in saved}
        train_state.optimizer.load_state_tensors(moments)
    except KeyError as error:
        raise InputError(
            f"its optimizer state is not this model's: {error}", where=str(path), fix="use the run's own"
        ) from None
    return read_state(path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Take the weights alone from a checkpoint, verified first.

    Raises InputError when it is damaged or not there, or its tensors are not the model's.
    """
    if (reason := defect(path)) is not None:
        fix = "restore it, or start a new run with another --out"
        raise InputError(f"the checkpoint cannot be used: {reason}", where=str(path), fix=fix)
    _take_weights(path, model_tensors(model), None)


@torch.no_grad()
def _take_weights(path: Path, present: Mapping[str, Tensor], sharding: Sharding | None) -> None:
    saved = SavedTensors(tensor_paths(path, WEIGHTS))
    shapes = sharding.shapes if sharding else {name: tensor.shape for name, tensor in present.items()}
    different = saved.keys() ^ shapes.keys() or {name for name in saved if saved.shapes[name] != tuple(shapes[name])}
    if different:
        raise InputError(
            f"its tensors are not this model's: {min(different)}", where=str(path), fix="use the run's own model"
        )
    for name, tensor in present.items():
        tensor.copy_(_own_rows(saved, name, name, sharding))


def tensor_paths(path: Path, stem: str) -> list[Path]:
    """Return the files of a verified checkpoint's tensors, WEIGHTS or OPTIMIZER, in the order of their rows."""
    names = [Path(name).name for name in recorded_names(path)]
    return [path / name for name in sorted(names) if name.startswith(stem) and name.endswith(".safetensors")]


def _own_rows(saved: SavedTensors, key: str, parameter: str, sharding: Sharding | None) -> Tensor:
    """Return this process's rows of a saved tensor that is cut as a parameter is."""
    if sharding is None or not saved.shapes[key]:
        return saved[key]
    rows = sharding.rows[parameter]
    return saved.rows(key, rows.start, rows.stop)
