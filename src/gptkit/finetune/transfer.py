"""From a pre-trained language model to the same model with a task's head, before its first step of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gptkit.errors import UsageError
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_double_heads import NEW_STD, GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files.shape import LAYER, MARKER_FIELDS
from gptkit.tasks.formats import Markers

EMBEDDINGS = ("transformer.wte.", "transformer.wpe.")


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """What a task adds to a model.

    `labels` name the outputs, in their order; a score, and the score of a choice, are one output. `markers` are the ids
    of start, delimiter and extract.
    """

    task: str
    format: str
    labels: tuple[str, ...]
    markers: Markers
    classifier_dropout: float = 0.1


def add_task_head(
    model: GPTForCausalLM, head: HeadSpec, *, seed: int, transfer_layers: str | int | None = None
) -> GPTDoubleHeadsModel:
    """Return the pre-trained model with a fresh head, in eval mode: a pure function of its arguments.

    Markers are drawn from N(0, 0.02) whatever stood in their rows; the table grows only where it has no such rows.
    `transfer_layers` keeps the embeddings and the first so many blocks (GPT-1 paper, figure 2; with all of them also
    what follows), "none" nothing but the sizes, None everything. The rest starts as in pre-training. UsageError for a
    number of layers that the model does not have.
    """
    n_layer = model.config.n_layer
    kept = transferred_layers(transfer_layers, n_layer)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        tuned = GPTDoubleHeadsModel(_config(model.config, head))
        tuned.train(False)
        theirs = model.state_dict()
        for name, tensor in tuned.state_dict().items():
            if name.startswith("score.") or kept is None:
                continue
            if depth_of(name, n_layer) <= kept or kept == n_layer:
                tensor[: len(theirs[name])] = theirs[name]
        # The markers' rows of the embedding and, where it is another tensor, of the LM head.
        for table in {id(table): table for table in (tuned.transformer.wte.weight, tuned.lm_head.weight)}.values():
            rows: Tensor = torch.randn(len(head.markers), table.shape[1]) * NEW_STD
            table[list(head.markers)] = rows.to(table.dtype)
    return tuned


def transferred_layers(transfer_layers: str | int | None, n_layer: int) -> int | None:
    """Return how many blocks are kept beside the embeddings; None when not even these are."""
    if transfer_layers is None:
        return n_layer
    if transfer_layers == "none":
        return None
    asked = str(transfer_layers)
    if not (asked.isascii() and asked.isdigit() and int(asked) <= n_layer):
        message = f"{asked!r} is not a number of this model's layers"
        raise UsageError(message, where="--transfer-layers", fix=f"give 0 to {n_layer}, or none")
    return int(asked)


def _config(config: GPTConfig, head: HeadSpec) -> GPTConfig:
    own = {
        "vocab_size": max(config.vocab_size, max(head.markers) + 1),
        "task": head.task,
        "format": head.format,
        "classifier_dropout": head.classifier_dropout,
        "id2label": dict(enumerate(head.labels)),
        "label2id": {label: index for index, label in enumerate(head.labels)},
    }
    markers = dict(zip(MARKER_FIELDS, head.markers, strict=True))
    return GPTConfig(**{**config.without_head().to_diff_dict(), **own, **markers})


def depth_of(name: str, n_layer: int) -> int:
    """Return a parameter's depth: 0 for the embeddings, i + 1 for block i, n_layer + 1 for what follows the blocks."""
    if block := LAYER.match(name):
        return int(block[1]) + 1
    return 0 if name.startswith(EMBEDDINGS) else n_layer + 1
