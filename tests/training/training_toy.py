"""A tiny language model with dropout and a deterministic data source, for the tests of the training package.

As a script it is one process of one run after another: `python training_toy.py DIRECTORY [key=value ...] [+ ...]`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from gptkit.errors import GptkitError
from gptkit.system.signals import StopRequest
from gptkit.training.batches import Batch, Batches, MicroBatch, cut
from gptkit.training.checkpoints import newest_committed
from gptkit.training.job import Evaluate, Event, MicroBatching, Plan, StepEvent, TrainingJob
from gptkit.training.loop import train
from gptkit.training.optimizers import OptimizerSet, build_optimizer
from gptkit.training.options import TrainingOptions
from gptkit.training.processes import make_accelerator
from gptkit.training.schedules import learning_rate_factor

VOCABULARY, WIDTH, LENGTH, ROWS = 11, 8, 6, 10


class Toy(nn.Module):
    """Embedding, two residual blocks of a fused 3 x width matrix, tied head."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, WIDTH)
        self.h = nn.ModuleList(
            nn.ModuleList([nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)]) for _ in range(2)
        )
        self.ln_f = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dropout(self.wte(tokens))
        for up, down in self.h:  # type: ignore[misc]
            hidden = hidden + self.dropout(down(F.gelu(up(hidden))))
        return self.lm_head(self.ln_f(hidden))


def toy(dropout: float = 0.1, seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy(dropout)


def rows(first_row: int, count: int) -> Batch:
    """Rows of random tokens, each a pure function of its number; row r supervises 1 + r % LENGTH tokens."""
    numbers = torch.arange(first_row, first_row + count)[:, None]
    tokens = (
        (numbers * 7919 + torch.arange(LENGTH + 1) ** 2 * 31 + numbers * torch.arange(LENGTH + 1)) % 97
    ) % VOCABULARY
    labels = tokens[:, 1:].clone()
    labels[torch.arange(LENGTH) > numbers % LENGTH] = -100
    return {"tokens": tokens[:, :-1], "labels": labels}


def supervised(first_row: int, count: int) -> int:
    return sum(1 + row % LENGTH for row in range(first_row, first_row + count))


def toy_batches(micro_batch: int) -> Batches:
    def batches(step: int) -> list[MicroBatch]:
        pieces = cut((step - 1) * ROWS, ROWS, micro_batch)
        return [MicroBatch(first, supervised(first, n), partial(rows, first, n)) for first, n in pieces]

    return batches


def toy_loss(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
    logits = model(batch["tokens"])
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100, reduction="sum") / count


def toy_schedule(steps: int) -> Callable[[int], float]:
    return lambda step: learning_rate_factor("cosine", step, total_steps=steps, warmup_steps=2, final=0.1)


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions(**({"learning_rate": 1e-3, "weight_decay": 0.1} | changes))


def toy_job(
    plan: Plan, model: nn.Module, optimizer: OptimizerSet, *, micro_batch: int = 4, **changes: Any
) -> TrainingJob:
    """The toy's job; `changes` are fields of it."""
    fields: dict[str, Any] = {
        "model": model,
        "loss_function": toy_loss,
        "micro_batching": MicroBatching(batches_of=toy_batches, micro_batch=micro_batch),
        "optimizer": optimizer,
        "schedule": toy_schedule(plan.steps),
        "plan": plan,
    }
    return TrainingJob(**(fields | changes))


def toy_train(
    plan: Plan,
    *,
    model: nn.Module | None = None,
    optimizer: OptimizerSet | None = None,
    micro_batch: int = 4,
    accelerator: Accelerator | None = None,
    loss: Callable[[nn.Module, Batch, Tensor], Tensor] = toy_loss,
    choice: str = "adamw",
    take: Callable[[Event], object] = lambda event: None,
    evaluate: Evaluate | None = None,
    compile_blocks: Callable[[nn.Module], None] = lambda model: None,
    **more: Any,
) -> tuple[nn.Module, OptimizerSet, list[Event]]:
    """Run the loop on the toy to its end; `take` is given each event as it comes."""
    model = model or toy()
    optimizer = optimizer or build_optimizer(model.named_parameters(), options(optimizer=choice))
    job = toy_job(
        plan,
        model,
        optimizer,
        micro_batch=micro_batch,
        loss_function=loss,
        evaluate=evaluate,
        compile_blocks=compile_blocks,
    )
    taken = []
    for event in train(job, accelerator or make_accelerator("cpu"), **more):
        take(event)
        taken.append(event)
    return model, optimizer, taken


def everything(model: nn.Module, optimizer: OptimizerSet) -> dict[str, Tensor]:
    """Weights, moments and step counts by name, cloned."""
    found = {**model.state_dict(), **optimizer.state_tensors()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def step_rows(events: list[Event]) -> list[dict[str, float | None]]:
    """The rows of metrics.jsonl without what a clock decides."""
    found = [event.as_row() for event in events if isinstance(event, StepEvent)]
    return [{name: value for name, value in row.items() if "second" not in name} for row in found]


def bits_equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name].view(torch.int32), right[name].view(torch.int32)) for name in left
    )


def main(directory: Path, settings: dict[str, Any]) -> int:
    """Train; write each rank's events and weights beside the checkpoints.

    `pause` slows every step down; the losses of `infinite_rank` are infinite, its gradients are not.
    """
    torch.set_num_threads(1)
    pause, shards = settings.pop("pause", 0.0), settings.pop("shards", False)
    micro_batch, infinite_rank = settings.pop("micro_batch", 3), settings.pop("infinite_rank", None)

    def loss_function(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
        time.sleep(pause)
        return toy_loss(model, batch, count) + (torch.inf if accelerator.process_index == infinite_rank else 0.0)

    accelerator = make_accelerator("cpu")
    checkpoints = directory / "checkpoints"
    plan = Plan(**({"steps": 6, "log_every": 1} | settings))
    model = toy()
    optimizer = build_optimizer(model.named_parameters(), options())
    job = toy_job(plan, model, optimizer, micro_batch=micro_batch, loss_function=loss_function)
    rank = accelerator.process_index
    try:
        with StopRequest() as stop, open(directory / f"rows-{rank}.jsonl", "w", buffering=1) as file:
            for event in train(
                job,
                accelerator,
                checkpoint_directory=checkpoints,
                snapshot_directory=directory / "snapshots",
                resume_from=newest_committed(checkpoints).path,
                stop=stop,
                shards=shards,
            ):
                if isinstance(event, StepEvent):
                    file.write(json.dumps(event.as_row()) + "\n")
    except GptkitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        torch.save(everything(model, optimizer), directory / f"end-{rank}.pt")
    return 0


if __name__ == "__main__":
    code, arguments = 0, [*sys.argv[1:], "+"]
    while arguments and not code:
        end = arguments.index("+")
        out, *pairs = arguments[:end]
        Path(out).mkdir(exist_ok=True)
        code = main(Path(out), {name: json.loads(value) for name, _, value in (text.partition("=") for text in pairs)})
        arguments = arguments[end + 1 :]
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.exit(code)
