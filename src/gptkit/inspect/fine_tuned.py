"""What the head of a fine-tuned model reads: one sequence, both orders of a pair, or one for each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from gptkit.inspect.reading import Asked
from gptkit.inspect.trace import trace
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The sequences as the head reads them, whole even where the other views show less.

    A choice's logit is its sequence's score plus the bias; a label's is the sum of the sequences' scores plus its bias.
    """

    names: tuple[str, ...]  # (sequence,)
    ids: NDArray[np.int64]  # (sequence, position): -1 beyond a sequence's end
    attention: NDArray[np.float32]  # (layer, head, sequence, position): of the extract token, the last; 0 beyond it
    scores: NDArray[np.float32]  # (sequence, output): of what the classifier reads of each
    bias: NDArray[np.float32]  # (output,)
    logits: NDArray[np.float32]  # (label,), or (choice,)


@torch.no_grad()
def fine_tuned_of(model: GPTDoubleHeadsModel, asked: Asked) -> FineTuned:
    """Read each sequence alone: attention and states do not depend on the others."""
    encoded, body = asked.encoded, model.language_model()
    sequences = [
        encoded.ids[start:end].tolist() for start, end in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)
    ]
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), -1)
    rows, states = [], []
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
        traced = trace(body, sequence)
        query = traced.query[..., -1:, :] * traced.query.shape[-1] ** -0.5  # of the last token, which sees all
        weights = F.softmax((query @ traced.key.mT)[..., 0, :], dim=-1)  # (layer, head, position)
        rows.append(F.pad(weights, (0, longest - len(sequence))))
        layers = [*traced.residual[:-1:2], traced.final]  # what enters each block, and the final states
        read = traced.final if model.mix is None else model.mix(layers)  # (position, n_embd)
        extract = torch.tensor([[len(sequence) - 1]], device=read.device)
        states.append(model.pooled(read[None, None], extract)[0, 0])
    scores = torch.stack(states) @ model.score.weight.float().T  # (sequence, output)
    bias = model.score.bias.float()
    is_choice = asked.task.target == "choice"
    logits = (scores + bias)[:, 0] if is_choice else scores.sum(0) + bias
    found = (torch.stack(rows, dim=2), scores, bias, logits)
    return FineTuned(_names(asked, len(sequences)), ids, *(tensor.float().cpu().numpy() for tensor in found))


def _names(asked: Asked, count: int) -> tuple[str, ...]:
    if asked.task.target == "choice":
        return tuple(f"choice {number}" for number in range(count))
    names: Sequence[str] = ("first text first", "second text first") if count == 2 else ("the text",)
    return tuple(names)
