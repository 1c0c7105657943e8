"""Command lines of gptkit, run by one process or by several, which note what their files do not show.

As a script it takes a list of launches as JSON: each is {"processes", "notes_of", "runs"}, and a run is
{"name", "words", "begun"?, "spoil"?}. Every rank leaves `name-rank.json` in the folder `notes_of`: which micro-batches
it trained on and evaluated, the all-reduces of gradients, what it wrote; a spoilt launch leaves its exit codes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import sklearn.metrics  # noqa: F401  # once, before forking
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from gptkit.cli.main import main
from gptkit.finetune import command as finetune_command
from gptkit.finetune import job as finetuning_job
from gptkit.pretrain import command as pretrain_command
from gptkit.pretrain import job as pretraining_job
from gptkit.tasks import head_outputs
from gptkit.tasks.encoding import EncodedExamples
from gptkit.training.batches import Batch, GlobalBatch, MicroBatch
from gptkit.training.step import Trainer

WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}

notes: dict[str, Any] = {}
spoilt: dict[str, Any] = {}


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def digest(*tensors: Tensor) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(repr((tensor.dtype, tuple(tensor.shape))).encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def watch_training() -> None:
    """Note each micro-batch with what it drew from the generator, and the all-reduces of gradients until its end."""
    backward, prepare_model = Trainer.backward, Accelerator.prepare_model

    def noted(self: Trainer, step: GlobalBatch, micro_batch: MicroBatch, batch: Batch) -> Tensor:
        if spoilt and (spoilt["rank"], spoilt["step"]) == (rank(), step.step):
            raise getattr(torch, spoilt["error"])(spoilt["message"])
        before = len(notes["all_reduces"])
        loss = backward(self, step, micro_batch, batch)
        names = sorted(batch)
        notes["trained"].append(
            {
                "step": step.step,
                "row": micro_batch.first_row,
                "weight": micro_batch.weight,
                "count": [micro_batch.count, step.count, step.tokens],
                "sees": digest(*(batch[name] for name in names)),
                "draws": digest(torch.get_rng_state()),
                "is_last": micro_batch.is_last,
                "all_reduces": len(notes["all_reduces"]) - before,
            }
        )
        return loss

    def hooked(self: Accelerator, model: nn.Module, *more: Any, **named: Any) -> nn.Module:
        prepared: nn.Module = prepare_model(self, model, *more, **named)
        if isinstance(prepared, DistributedDataParallel):
            prepared.register_comm_hook(None, count_all_reduce)
        return prepared

    Trainer.backward = noted  # type: ignore[method-assign]
    Accelerator.prepare_model = hooked  # type: ignore[method-assign]


def count_all_reduce(_, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, and not as text
    notes["all_reduces"].append(bucket.buffer().numel())
    return allreduce_hook(None, bucket)


def watch_evaluation() -> None:
    """Note every window and every example that this rank evaluates."""
    windows, evaluate_head = pretraining_job._validation_batches, finetuning_job.evaluate_head

    def noted_windows(*arguments: Any) -> Iterator[Batch]:
        for batch in windows(*arguments):
            yield Seen(batch)

    def noted_evaluation(model: nn.Module, examples: EncodedExamples, *others: Any, **named: Any) -> Any:
        noted = Noted(**{field.name: getattr(examples, field.name) for field in fields(examples)})
        return evaluate_head(model, noted, *others, **named)

    pretraining_job._validation_batches = noted_windows
    finetuning_job.evaluate_head = head_outputs.evaluate_head = noted_evaluation


class Noted(EncodedExamples):
    """Examples that note which of them are taken."""

    def select(self, indices: Any) -> Any:
        notes["predicted"].append(indices.tolist())
        return super().select(indices)


class Seen(dict[str, Tensor]):
    """A batch that notes when its tensors are taken."""

    def items(self) -> Any:
        notes["validated"].append(self["shift_labels"].tolist())
        return super().items()


def watch_writing(event: str, arguments: tuple[Any, ...]) -> None:
    if "written" not in notes:
        return
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and isinstance(arguments[0], str):
        notes["written"].append(arguments[0])
    elif event in WRITES:
        notes["written"].append(str(arguments[0]))


def run(notes_of: Path, name: str, words: list[str], spoil: Mapping[str, Any] | None = None) -> None:
    """Run one command line as this rank, and leave what was noted; end the process if it fails."""
    spoilt.update(spoil or {})
    notes.update({key: [] for key in ("trained", "validated", "predicted", "all_reduces", "written")})
    code = main(words)
    found = dict(notes)
    notes.clear()
    if code:
        sys.exit(code)
    (notes_of / f"{name}-{rank()}.json").write_text(json.dumps(found))


def work(notes_of: Path, runs: list[dict[str, Any]]) -> None:
    watch_training()
    watch_evaluation()
    finetune_command.draw_loss = pretrain_command.draw_loss = lambda *_, **__: None  # it takes as long as a run
    sys.addaudithook(watch_writing)
    for one in runs:
        run(notes_of, **one)


def launch(processes: int, notes_of: str, runs: list[dict[str, Any]]) -> None:
    """Fork, so that the libraries are imported once: one process as a user starts it, several by torch's launcher."""
    Path(notes_of).mkdir()
    for one in runs:
        if "begun" in one:
            finished, run, step = one.pop("begun")
            rewind(Path(finished), Path(run), step)
    if processes == 1:
        child = multiprocessing.get_context("fork").Process(target=work, args=(Path(notes_of), runs))
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(child.exitcode)
        return
    how = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "max_restarts": 0, "start_method": "fork"}
    config = LaunchConfig(1, 1, processes, run_id=notes_of, **how)
    try:
        elastic_launch(config, work)(Path(notes_of), runs)
    except ChildFailedError as failed:
        if not any("spoil" in one for one in runs):
            raise
        codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        (Path(notes_of) / "failures.json").write_text(json.dumps(codes))


def rewind(finished: Path, run: Path, step: int) -> None:
    """Make `run` what `finished` was when the checkpoint of `step` was its last one, but for its rows."""
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("model", "result.json", "predictions-*"))
    for checkpoint in (run / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in json.loads(Path(sys.argv[1]).read_text()):
        launch(**one)
