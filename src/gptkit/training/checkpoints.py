"""Save, find and load checkpoints and snapshots: `checkpoints/step-000100/`, complete or absent.

Order of a save: every file written and synced, the directory synced, MANIFEST.json renamed into place, its directory
synced, and only then older checkpoints removed, but never the best. A committed directory is never written to again.
system/run_layout.py says what the manifest guarantees. If processes shard the weights, each writes its rows to a file
of its own, such as model-00001-of-00002.safetensors; any number of processes can read them again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
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
    DAMAGED,
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
from gptkit.system.writing import json_text
from gptkit.training.checkpoint_files import (
    SavedTensors,
    begin,
    commit,
    remove_leftovers,
    rows_beside,
    safetensors_chunks,
)
from gptkit.training.optimizers import OptimizerSet
from gptkit.training.processes import on_every_process, on_main_process
from gptkit.training.sharding import Sharding

OPTIMIZER, STATE = "optimizer", "state.json"
STATE_SCHEMA = "gptkit.state/1"  # also that of a state.json without a schema
CUT_OFF = f"no {MANIFEST}: the save was interrupted"
UNRECORDED = {  # what older versions did
    **{"encoding": "utf-8", "objective": "causal", "features": "none", "head_learning_rate": "0.01"},
    **{"head": "extract", "lm_epochs": "0", "lm_learning_rate": "6.25e-05"},
}
DECAYED = "its learning rate was already decaying towards the end of a shorter run (a smaller --steps)"


@dataclass
class RunState:
    """The numbers of a checkpoint; seconds and tokens count from the run's start, over all attempts.

    `unfinished_row` is the row of `step` if a signal interrupted its evaluation. The best evaluation so far was
    `best_value` at `best_step`. A resumed run must have the same `identity`, and reuses the `choices` if it can. The
    state of the trainer's `parts` is in state.json under their names, beside these fields. Every field needs a default,
    because checkpoints of older versions lack what was added since.
    """

    step: int = 0
    steps: int | None = None  # of the whole run
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
        """The last step whose row stays in metrics.jsonl when the run resumes from here."""
        return self.step if self.unfinished_row is None else self.step - 1

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.train_seconds if self.train_seconds else 0.0


@dataclass(frozen=True)
class Found:
    """The newest usable checkpoint with its state, and (directory, reason) of every rejected one.

    Without one, `path` is None and `state` that of step 0.
    """

    path: Path | None
    rejected: tuple[tuple[Path, str], ...] = ()
    state: RunState = field(default_factory=RunState, compare=False)

    def lines(self) -> list[str]:
        """Return a log line for each rejected checkpoint."""
        instead = f"resuming from {self.path.name}" if self.path else "starting from step 0"
        return [f"{path} is not used: {reason}; {instead}" for path, reason in self.rejected]


@dataclass(frozen=True)
class TrainState:
    """The weights and moments that a process holds: all of them, or its rows if they are sharded."""

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
    """Commit the checkpoint of `state.step` under `directory`, then `prune` the directory.

    Every process must call this; only the main one writes, unless the weights are sharded. Raises OutOfResources when
    space runs out, InputError when the directory cannot be written; committed checkpoints are then left untouched.
    """
    path = directory / directory_name(state.step)
    writes = accelerator.is_main_process or train_state.sharding is not None
    with _saving(path, accelerator):
        on_main_process(accelerator, lambda: begin(path))
        parts = on_every_process(accelerator, lambda: _write_part(path, train_state) if writes else [])
        records = [record for part in parts for record in part]
        on_main_process(accelerator, lambda: _commit(path, state, records))
        on_main_process(accelerator, lambda: prune(directory, keep, keep_step))
    return path


@contextlib.contextmanager
def _saving(path: Path, accelerator: Accelerator) -> Iterator[None]:
    """Free the space of a save that fails, and raise its OSError as one of ours."""
    with files.translate_os_errors(f"saving {path.parent.name}/{path.name}", fix=AGAIN):
        try:
            yield
        except (OSError, GptkitError):
            if accelerator.is_main_process:
                remove_leftovers(path)
            raise


def _write_part(path: Path, train_state: TrainState) -> list[FileRecord]:
    tensors = {WEIGHTS: train_state.weights(), OPTIMIZER: train_state.optimizer.state_tensors()}
    return [
        files.write_durably(path / train_state.file_name(stem), safetensors_chunks(named))
        for stem, named in tensors.items()
    ]


def _commit(path: Path, state: RunState, records: list[FileRecord]) -> None:
    numbers = dataclasses.asdict(state)
    content = {"schema": STATE_SCHEMA, **numbers.pop("parts"), **numbers}
    state_text = json_text(content, indent=1, sort_keys=True, allow_nan=True)
    records = [*records, files.write_durably(path / STATE, [state_text.encode()])]
    rows = rows_beside(path)
    commit(path, state.step, records, record_of(rows) if rows.exists() else None)


def write_snapshot(directory: Path, model: nn.Module, step: int, *, accelerator: Accelerator) -> None:
    """Commit the full weights of `model` as the snapshot of `step`; every process must call this, the main one writes.

    Call it before saving the checkpoint of the same step: a run that resumes then has all snapshots up to its
    checkpoint, and writes the later ones again. Snapshots are never pruned. Raises OutOfResources when space runs out,
    InputError when the directory cannot be written.
    """
    path = directory / directory_name(step)

    def write_here() -> None:
        if is_committed(path):  # by an earlier attempt, with the same weights
            return
        begin(path)
        weights = safetensors_chunks(model_tensors(model))
        commit(path, step, [files.write_durably(path / f"{WEIGHTS}.safetensors", weights)])

    with _saving(path, accelerator):
        on_main_process(accelerator, write_here)


def drop_snapshots_after(directory: Path, step: int) -> None:
    """Remove the snapshots after `step`, and finish removals that were interrupted."""
    files.remove_discarded(directory)
    for path in all_steps(directory):
        if step_of(path) > step:
            files.discard(path)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return weights and persistent buffers by name; tied ones only under their first name."""
    first_names: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        first_names.setdefault(id(tensor), name)
    return {name: state[name] for name in first_names.values()}


def newest_committed(directory: Path, continues: Callable[[RunState], bool] = lambda state: True) -> Found:
    """Return the newest checkpoint that verifies byte for byte and that `continues` accepts, with those rejected.

    The newest one may lack a manifest (its save was interrupted); if it is the only one, the run starts from step 0. An
    older one without a manifest is damaged, and is rejected whether it is needed or not. Raises InputError, naming each
    checkpoint, if there are some but none is usable; and for a checkpoint of another version.
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
        elif not continues(state := read_state(path)):
            rejected.append((path, DECAYED))
        else:
            older = [(other, f"{MANIFEST} is missing") for other in candidates[number:] if not is_committed(other)]
            return Found(path, (*rejected, *older), state)
    if all(reason == CUT_OFF for _, reason in rejected):
        return Found(None, tuple(rejected))
    reasons = "; ".join(f"{path.name}: {reason}" for path, reason in rejected)
    raise InputError(
        f"no checkpoint can be used: {reasons}",
        where=str(directory),
        fix="restore one, or start a new run with another --out",
    )


def quarantine(found: Found) -> None:
    """Make room to resume: move damaged checkpoints to `damaged/` and remove the other rejected ones."""
    for path, reason in found.rejected:
        if reason in (CUT_OFF, DECAYED):
            files.discard(path)
            continue
        shelf = path.parent / DAMAGED
        files.make_directories(shelf)
        taken = len(list(shelf.glob(f"{path.name}*")))
        files.rename(path, shelf / (f"{path.name}-{taken}" if taken else path.name))


def prune(directory: Path, keep: int, keep_step: int | None = None) -> None:
    """Remove all committed checkpoints except the newest `keep`, the best steps recorded in these, and `keep_step`."""
    files.remove_discarded(directory)
    committed = [path for path in all_steps(directory) if is_committed(path)]
    kept: set[int | None] = {keep_step}
    for path in committed[:keep]:
        with contextlib.suppress(InputError):  # an unreadable one records no best step
            kept.add(read_state(path).best_step)
    for path in committed[keep:]:
        if step_of(path) not in kept:
            files.discard(path)


def read_state(path: Path) -> RunState:
    """Read the numbers of a verified checkpoint; raises InputError for one of another version."""
    try:
        values = json.loads((path / STATE).read_text(encoding="utf-8"))
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


def refuse_other_identity(path: Path, saved: Mapping[str, str], identity: Mapping[str, str]) -> None:
    """Raise UsageError if the identity `saved` in a checkpoint differs from this run's, with old and new values."""
    saved = {**{name: value for name, value in UNRECORDED.items() if name in identity}, **saved}
    if unrecorded := sorted(identity.keys() - saved.keys()):
        message = f"the checkpoint is from an earlier version, which did not record {', '.join(unrecorded)}"
        fix = "finish the run with that version, or start a new run with another --out"
        raise UsageError(message, where=str(path), fix=fix)
    changes = [
        f"{name} was {saved.get(name, 'unset')}, now {identity.get(name, 'unset')}"
        for name in sorted(saved.keys() | identity.keys())
        if saved.get(name) != identity.get(name)
    ]
    if changes:
        fix = "restore the old values, or start a new run with another --out"
        raise UsageError(f"the checkpoint belongs to another run: {'; '.join(changes)}", where=str(path), fix=fix)


def load(path: Path, train_state: TrainState) -> RunState:
    """Load weights and moments from a verified checkpoint and return its numbers.

    Raises InputError if its tensors are not the model's.
    """
    sharding = train_state.sharding
    _load_weights(path, train_state.weights(), sharding)
    saved, rows = _saved_tensors(path, OPTIMIZER), sharding.rows if sharding else {}
    try:
        moments = {key: saved.read(key, rows.get(key.rpartition("/")[0])) for key in saved.shapes}
        train_state.optimizer.load_state_tensors(moments)
    except KeyError as error:
        message = f"the checkpoint's optimizer state does not match this model: {error}"
        raise InputError(message, where=str(path), fix="use the run's own") from None
    return read_state(path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Verify a checkpoint and load only its weights.

    Raises InputError if it is damaged or missing, or if its tensors are not the model's.
    """
    if (reason := defect(path)) is not None:
        fix = "restore it, or start a new run with another --out"
        raise InputError(f"the checkpoint cannot be used: {reason}", where=str(path), fix=fix)
    _load_weights(path, model_tensors(model), None)


@torch.no_grad()
def _load_weights(path: Path, weights: Mapping[str, Tensor], sharding: Sharding | None) -> None:
    saved = _saved_tensors(path, WEIGHTS)
    shapes = {name: tuple(sharding.shapes[name] if sharding else weights[name].shape) for name in weights}
    if saved.shapes != shapes:
        different = min(name for name, _ in saved.shapes.items() ^ shapes.items())
        message = f"the checkpoint's tensors do not match this model: {different}"
        raise InputError(message, where=str(path), fix="use the run's own model")
    for name, tensor in weights.items():
        tensor.copy_(saved.read(name, sharding.rows[name] if sharding else None))


def _saved_tensors(path: Path, stem: str) -> SavedTensors:
    """Open a verified checkpoint's tensors, WEIGHTS or OPTIMIZER, with their files in the order of the rows."""
    names = sorted(Path(name).name for name in recorded_names(path))
    return SavedTensors([path / name for name in names if name.startswith(stem) and name.endswith(".safetensors")])
