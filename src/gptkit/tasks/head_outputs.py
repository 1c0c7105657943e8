"""Run a fine-tuned model's head over examples: its logits, in batches that processes share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from gptkit.errors import InputError
from gptkit.model.configuration_gpt import mask_token_of, read_config
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model_files import MARKER_FIELDS, not_finite
from gptkit.system.run_layout import described_in
from gptkit.tasks.encoding import EncodedExamples, Indices, Markers
from gptkit.training.batches import ShouldStop, own_batches

PREDICTION_TOKENS = 4096  # per forward pass without gradients, padding included


def marker_ids(directory: Path, tokenizer_size: int) -> Markers:
    """Return the marker ids: a fine-tuned model's own, else the first beyond the tokenizer's and a mask token."""
    config = read_config(described_in(directory) / "config.json")
    if config.format is None:
        mask_token = mask_token_of(config)
        if mask_token is not None and mask_token < tokenizer_size:
            message = f"mask_token_id {mask_token} is a token of its tokenizer, which has {tokenizer_size:,}"
            raise InputError(message, where=str(directory), fix="copy the model again")
        first = tokenizer_size if mask_token is None else mask_token + 1
        return Markers(first, first + 1, first + 2)
    return Markers(*(getattr(config, name) for name in MARKER_FIELDS))


class HeadOutput(NamedTuple):
    """Logits (example, output) in the order of the examples, and the mean classifier loss if they are labelled."""

    logits: NDArray[np.float32]
    loss: float | None


def evaluation_pieces(examples: EncodedExamples, batch_size: int | None = None) -> list[Indices]:
    """Return the example indices of each batch of an evaluation, at most `batch_size`, longest examples first."""
    everything, most = np.arange(len(examples)), batch_size or len(examples)
    return [indices for _, indices in examples.cut_by_length(everything, most, PREDICTION_TOKENS)]


@torch.no_grad()
def evaluate_head(
    model: GPTDoubleHeadsModel,
    examples: EncodedExamples,
    pieces: Sequence[Indices] | None = None,
    *,
    should_stop: ShouldStop = lambda: False,
) -> HeadOutput:
    """Return the outputs of the model, in eval mode, for the examples: one per class, score or choice.

    `pieces` (by default `evaluation_pieces`) are the batches; examples in none of them get logits of 0. Processes take
    batches in turn, so their number affects only the order of the loss's last sum. Raises StopEvaluation once
    `should_stop()` is true.
    """
    pieces = evaluation_pieces(examples) if pieces is None else pieces
    device = next(model.parameters()).device
    is_choice = model.config.format == "multiple-choice"
    outputs = examples.sequences_per_example if is_choice else model.score.out_features
    table = torch.zeros(len(examples), outputs, device=device)  # zero where another process computes
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for indices in own_batches(pieces, should_stop):
        batch = {name: torch.from_numpy(array).to(device) for name, array in examples.select(indices).items()}
        output = model(**batch, num_items_in_batch=1)
        table[torch.as_tensor(indices, device=device)] = output.logits.view(len(indices), -1)
        if output.loss is not None:
            loss += output.loss.double()
    if dist.is_initialized():
        dist.all_reduce(table)
        dist.all_reduce(loss)
    return HeadOutput(table.cpu().numpy(), None if examples.targets is None else loss.item() / len(examples))


def logits_of(
    model: GPTDoubleHeadsModel, examples: EncodedExamples, batch_size: int | None = None
) -> NDArray[np.float32]:
    """Return the logits of every example (example, output); InputError where they are not finite."""
    logits = evaluate_head(model, examples, evaluation_pieces(examples, batch_size)).logits
    if not np.isfinite(logits).all():
        raise not_finite("the model's logits are")
    return logits
