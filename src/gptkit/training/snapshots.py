"""Snapshots: the weights alone, whole also where training shards them, at evenly spaced steps; never pruned.

A snapshot is committed before the checkpoint of its step: a run that resumes has all of them up to its checkpoint, and
writes the later ones again.
"""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from torch import nn

from gptkit.errors import AGAIN, GptkitError
from gptkit.system import files
from gptkit.system.run_layout import WEIGHTS, all_steps, directory_name, is_committed, step_of
from gptkit.training.checkpoints import model_tensors
from gptkit.training.manifests import begin, commit, discard, remove_discarded, remove_leftovers
from gptkit.training.processes import on_main_process
from gptkit.training.tensor_files import safetensors_chunks


def write(directory: Path, model: nn.Module, step: int, *, accelerator: Accelerator) -> None:
    """Commit the whole weights of `model` as the snapshot of `step`; every process calls this, the main one writes.

    Raises OutOfResources when space runs out, InputError when the directory cannot be written.
    """
    path = directory / directory_name(step)
    with files.translate_os_errors(f"saving {directory.name}/{path.name}", fix=AGAIN):
        on_main_process(accelerator, lambda: _write(path, model, step))


def _write(path: Path, model: nn.Module, step: int) -> None:
    if is_committed(path):  # an earlier attempt wrote the same weights
        return
    begin(path)
    try:
        weights = safetensors_chunks(model_tensors(model))
        commit(path, step, [files.write_durably(path / f"{WEIGHTS}.safetensors", weights)])
    except (OSError, GptkitError):
        remove_leftovers(path)
        raise


def drop_after(directory: Path, step: int) -> list[Path]:
    """Remove the snapshots after `step` and what is left of removals; return those that were committed."""
    remove_discarded(directory)
    later = [path for path in all_steps(directory) if step_of(path) > step]
    committed = [path for path in later if is_committed(path)]
    for path in later:
        discard(path)
    return committed
