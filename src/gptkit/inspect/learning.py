"""How a model came to what it computes on a text: the same text in the weights that its run kept, step by step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from gptkit.decoding.text_model import first_sample
from gptkit.inspect.head_types import head_types_of
from gptkit.inspect.lens import lens_of
from gptkit.inspect.trace import trace
from gptkit.model.loading import load_model
from gptkit.model.modeling_gpt import GPTForCausalLM


@dataclass(frozen=True, eq=False)
class Learning:
    """A frame for each step with weights, the last the model that is inspected."""

    steps: NDArray[np.int64]  # (frame,)
    nll: NDArray[np.float32]  # (frame, position): surprisal of the targets, which are the last frame's
    top_ids: NDArray[np.int64]  # (frame, layer + 1, position): the lens's likeliest token
    top_probabilities: NDArray[np.float32]  # (frame, layer + 1, position)
    heads: NDArray[np.float32]  # (frame, layer, head, type)
    samples: tuple[str, ...]  # (frame,): without a prompt, from the same seed


@torch.no_grad()
def learning_of(
    weights: Mapping[int, Path],
    ids: Sequence[int],
    targets: NDArray[np.int64],
    excluded: Collection[int],
    device: torch.device,
    say: Callable[[str], None] = lambda line: None,
) -> Learning:
    """Read ids (position,) with the weights of each step; `excluded` ids do not occur in the tests of head types."""
    wanted = torch.from_numpy(targets).to(device)
    rows = []
    for number, (step, directory) in enumerate(weights.items()):
        say(f"step {step:,}: {number + 1} of {len(weights)}")
        model = load_model(directory).to(device)  # type: ignore[arg-type]
        assert isinstance(model, GPTForCausalLM)
        traced = trace(model, ids)
        logits = model.lm_head(traced.final).float()  # (position, vocab)
        losses = F.cross_entropy(logits, wanted, reduction="none")
        lens = lens_of(model, traced, logits, wanted)
        types = head_types_of(model, excluded).scores
        rows.append((losses.cpu().numpy(), lens.top_ids[..., 0], lens.top_probabilities[..., 0], types))
    nll, top_ids, top_probabilities, heads = (np.stack(column) for column in zip(*rows, strict=True))
    samples = tuple(str(first_sample(directory)["text"]) for directory in weights.values())
    return Learning(np.array([*weights]), nll, top_ids, top_probabilities, heads, samples)
