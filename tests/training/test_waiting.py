"""The loop reads no tensor's value between rows: on a GPU each would stop the processor until the device is idle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from gptkit.finetune.job import double_heads_loss, finetuning_batches
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.pretrain.job import language_modeling_loss
from gptkit.tasks.encoding import EncodedExamples
from gptkit.training.batches import Batches, MicroBatch
from gptkit.training.job import LossFunction, MicroBatching, Plan, StepEvent, TrainingJob
from gptkit.training.loop import train
from gptkit.training.optimizers import build_optimizer
from gptkit.training.options import TrainingOptions
from gptkit.training.processes import make_accelerator

SHAPE: dict[str, Any] = {"vocab_size": 61, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 2}
MARKERS = {"start_token_id": 58, "delimiter_token_id": 59, "extract_token_id": 60}
# item(), float(), int(), bool() and what makes a tensor whose size hangs on values
READING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::equal",
    "aten::masked_select",
    "aten::_unique2",
    "aten::is_nonzero",
    "aten::bincount",
}


class Waits(TorchDispatchMode):
    """Notes at which step a value was read."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self.steps: list[int] = []

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if operator._schema.name in READING:
            self.steps.append(self.step)
        return operator(*arguments, **(named or {}))

    @contextmanager
    def watching(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Note as well what on a CPU costs nothing and is no operator."""
        with self, monkeypatch.context() as patched:
            for name in ("cpu", "numpy", "tolist"):
                patched.setattr(torch.Tensor, name, self._noted(getattr(torch.Tensor, name)))
            yield

    def _noted(self, method: Any) -> Any:
        def noted(tensor: torch.Tensor, *more: Any, **named: Any) -> Any:
            self.steps.append(self.step)
            return method(tensor, *more, **named)

        return noted


def pretraining() -> tuple[nn.Module, LossFunction, Batches]:
    ids = torch.randint(61, (3, 17))
    batch = {"input_ids": ids[:, :-1].contiguous(), "shift_labels": ids[:, 1:].contiguous()}
    pieces = [MicroBatch(row, 3, lambda: batch) for row in (0, 3)]
    return GPTForCausalLM(GPTConfig(**SHAPE)), language_modeling_loss, lambda step: pieces


def finetuning() -> tuple[nn.Module, LossFunction, Batches]:
    config = GPTConfig(**SHAPE, format="similarity", id2label={0: "no", 1: "yes"}, **MARKERS)
    offsets = np.concatenate([[0], np.cumsum(3 + np.arange(16) * 7 % 19)])
    examples = EncodedExamples(np.full(offsets[-1], 5, np.int32), offsets, 2, np.arange(8) % 2, {})
    batches = finetuning_batches(examples, batch_size=6, seed=0, micro_batch=4, padded_tokens=999)
    return GPTDoubleHeadsModel(config), partial(double_heads_loss, lm_coef=0.5), batches


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "openai-adam"])
@pytest.mark.parametrize("objective", [pretraining, finetuning])
def test_values_are_read_at_rows_alone(objective: Any, optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss, batches = objective()
    waits = Waits()

    def noted(step: int) -> list[MicroBatch]:
        waits.step = step
        with _disable_current_modes():  # what loads a batch works on the host
            loaded = [(one, one.load()) for one in batches(step)]
        return [dataclasses.replace(one, load=partial(dict, batch)) for one, batch in loaded]

    optimizers = build_optimizer(model.named_parameters(), TrainingOptions(optimizer=optimizer))
    job = TrainingJob(
        model=model,
        loss_function=loss,
        micro_batching=MicroBatching(batches_of=lambda rows: noted),
        optimizer=optimizers,
        schedule=lambda step: 1.0,
        plan=Plan(steps=12, log_every=6),
    )
    events = train(job, make_accelerator("cpu"))
    with waits.watching(monkeypatch):
        rows = [event.step for event in events if isinstance(event, StepEvent)]
    assert rows == [1, 6, 12]
    assert set(waits.steps) == set(rows)
