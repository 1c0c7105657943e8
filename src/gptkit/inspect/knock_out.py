"""Knock-out: the loss with the output of one head, one attention sublayer or one MLP set to zero, for each in turn.

Zero, for a head: its slice of the concatenated outputs of the heads, before the output projection, whose bias stays.
For an attention sublayer or an MLP: all that it adds to the stream, bias included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gptkit.inspect.reading import Asked
from gptkit.inspect.trace import Point, blocks_of, recording
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel, summed_classifier_loss
from gptkit.model.modeling_gpt import GPTBlock, GPTForCausalLM, dense_causal_mask

MOST_SECONDS = 5  # that the view may take on a CPU unless it is asked for
OPERATIONS_PER_SECOND = 6e10  # measured on two threads of one Zen 3 core (AVX2), in fp32
ROWS = 512  # whose logits are computed at a time

Losses = Callable[[Tensor], Tensor]  # states that a head reads (part, sequence, position, n_embd) -> (part, ...)


@dataclass(frozen=True, eq=False)
class KnockOut:
    """Losses in nats: of the prediction after each position, or of a fine-tuned model's answer, which has no position.

    The parts of a layer are its heads, then its attention, then its MLP.
    """

    whole: NDArray[np.float32]  # (position,) or (): with nothing set to zero
    losses: NDArray[np.float32]  # (layer, part, position) or (layer, part)

    @property
    def changes(self) -> NDArray[np.float32]:
        return self.losses - self.whole

    @property
    def totals(self) -> NDArray[np.float32]:
        """The changes (layer, part) of the whole text's loss, or of the answer's."""
        return self.changes[..., :-1].sum(-1) if self.whole.ndim else self.changes

    def most(self, count: int) -> list[tuple[int, int]]:
        """Return the layer and part of those that change the loss most, the largest change first."""
        totals = self.totals
        order = np.argsort(-np.abs(totals), axis=None, kind="stable")[:count]
        return [divmod(int(index), totals.shape[1]) for index in order]

    def name(self, layer: int, part: int) -> str:
        heads = self.losses.shape[1] - 2
        return f"head {layer}.{part}" if part < heads else f"{('attention', 'MLP')[part - heads]} {layer}"


def seconds_of(model: GPTForCausalLM, tokens: int, answered: int = 0) -> float:
    """Return about how long two cores take for a text of so many tokens, and for an answer that reads so many."""
    layers, parts = model.config.n_layer, model.config.n_head + 2
    block = sum(parameter.numel() for parameter in blocks_of(model)[0].parameters())
    after_blocks = (tokens + answered) * layers * (layers + 1) / 2 * block  # layer l runs on through layers - l
    after_heads = tokens * layers * model.lm_head.weight.numel()
    return float(2 * parts * (after_blocks + after_heads) / OPERATIONS_PER_SECOND)


def knock_out_of_text(model: GPTForCausalLM, ids: Tensor, targets: Tensor) -> KnockOut:
    """Return the losses (position,) of the targets (position,), each of which follows the id (position,) there."""
    targets = targets.to(model.device)

    def losses(final: Tensor) -> Tensor:
        rows = zip(final.flatten(0, 2).split(ROWS), targets.repeat(len(final)).split(ROWS), strict=True)
        nll = [F.cross_entropy(model.lm_head(states).float(), target, reduction="none") for states, target in rows]
        return torch.cat(nll).view(len(final), -1)  # (part, position)

    return _knock_out(model, ids[None].to(model.device), losses)


@torch.no_grad()
def knock_out_of_answer(model: GPTDoubleHeadsModel, asked: Asked) -> KnockOut:
    """Return the losses () of a fine-tuned model, for which its own answer is the label.

    A class or a choice has a cross-entropy, a score a squared error, a distribution over scores a cross-entropy.
    """
    batch = {
        name: torch.from_numpy(array).to(model.device) for name, array in asked.encoded.select(np.arange(1)).items()
    }
    ids, extract = batch["input_ids"], batch["extract"]  # (1, sequence, position), (1, sequence)
    logits = model(ids, extract).logits
    answers = {"score": logits, "soft-score": logits.softmax(-1)}
    label = answers[asked.task.target] if asked.task.target in answers else logits.argmax(-1)

    def losses(final: Tensor) -> Tensor:
        logits = model.classify(final, extract.expand(len(final), -1))
        return torch.stack([summed_classifier_loss(row[None], label) for row in logits])  # (part,)

    return _knock_out(model, ids[0], losses)


@torch.no_grad()
def _knock_out(model: GPTForCausalLM | GPTDoubleHeadsModel, ids: Tensor, losses: Losses) -> KnockOut:
    """Continue from the input of each layer with all its parts in one batch; ids (sequence, position)."""
    body, blocks, heads = model.transformer, blocks_of(model), model.config.n_head
    mix = getattr(model, "mix", None)

    def read(inputs: list[Tensor], final: Tensor) -> Tensor:
        return final if mix is None else mix([*inputs, final])

    with recording([Point("input", block, "input") for block in blocks]) as recorded:
        final = body(input_ids=ids, use_cache=False).last_hidden_state  # (sequence, position, n_embd)
    mask, rows = dense_causal_mask(final), []
    for layer in range(len(blocks)):
        first = layer if mix is None else 0  # only a mix reads what entered the layers before
        inputs = [hidden.repeat(heads + 2, 1, 1) for hidden in recorded["input"][first : layer + 1]]
        with _one_part_zero(blocks[layer], heads):
            hidden = blocks[layer](inputs[-1], attention_mask=mask)  # (part * sequence, position, n_embd)
        for block in blocks[layer + 1 :]:
            inputs.append(hidden)
            hidden = block(hidden, attention_mask=mask)
        rows.append(losses(read(inputs, body.ln_f(hidden)).view(-1, *final.shape)))
    whole = losses(read(recorded["input"], final)[None])[0]
    return KnockOut(whole.cpu().numpy(), torch.stack(rows).cpu().numpy())


@contextmanager
def _one_part_zero(block: GPTBlock, heads: int) -> Iterator[None]:
    """Within this context, zero head h in part h of the block's batch, then the attention, then the MLP."""

    def zero_heads(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        attended = inputs[0].clone()  # (part * sequence, position, n_embd)
        parts = attended.view(heads + 2, -1, attended.shape[1], heads, attended.shape[2] // heads)
        for head in range(heads):
            parts[head, :, :, head] = 0
        return attended

    def zero_output(part: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            zeroed = output.clone()  # (part * sequence, position, n_embd)
            zeroed.view(heads + 2, -1, *output.shape[1:])[part] = 0
            return zeroed

        return hook

    hooks = (
        block.attn.c_proj.register_forward_pre_hook(zero_heads),
        block.attn.resid_dropout.register_forward_hook(zero_output(heads)),
        block.mlp.register_forward_hook(zero_output(heads + 1)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
