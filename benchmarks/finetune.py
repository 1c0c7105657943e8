"""Fine-tuning speed beside a plain HF loop, in one run: gpt2-small's shape, RTE's lengths, lm_coef 0.5, batch 32.

    python benchmarks/finetune.py [--rounds 3] [--steps N] [--only NAME ...] [--json FILE]

The examples are random tokens as long as RTE's training examples are with GPT-2's tokenizer. HF's rows are the loop
that people write: GPT2LMHeadModel and a linear layer on the last token, cross-entropy of both, all logits, right
padding with an attention mask to the longest of the batch, fused AdamW. Ours is what `gptkit finetune` runs, and takes
the same batches in the same order. Rows "by length" are for the Trainer's group_by_length, which nearly does without
padding but draws other batches: their time is that of examples of the mean length, as time is nearly linear in length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from side_by_side import BEST, Part, Row, Step, auto_precision, compare, gptkit_steps

if TYPE_CHECKING:
    from torch import Tensor

BATCH, EXAMPLES, VOCABULARY, LM_COEF = 32, 2490, 50257, 0.5
# Tokens of RTE's 2,490 training examples, start, delimiter and extract included, at each twentieth of their order.
LENGTHS = (17, 29, 33, 37, 40, 43, 45, 48, 50, 53, 56, 59, 62, 66, 73, 85, 104, 120, 134, 156, 291)
START, DELIMITER, EXTRACT = VOCABULARY, VOCABULARY + 1, VOCABULARY + 2


def main() -> None:
    parts = {precision: part_of(precision) for precision in ("fp32", "bf16")}
    compare(__doc__ or "", __file__, parts, rounds=3)


def part_of(precision: str) -> Part:
    """Return the rows of a precision; together, those of both would need more than 24 GiB."""
    ours = f"gptkit {precision}"
    rows = {
        f"HF {precision}": Row(partial(hf_step, precision, by_length=False, compiles=False)),
        f"HF {precision}, by length": Row(partial(hf_step, precision, by_length=True, compiles=False)),
        f"HF {precision}, by length, compiled": Row(partial(hf_step, precision, by_length=True, compiles=True), True),
        ours: Row(partial(gptkit_step, precision)),
    }
    asked = {ours: {BEST: 1.5}} if precision == auto_precision() else {}
    return Part(rows=rows, unit="examples", work=BATCH, steps=1, asked=asked)


@cache
def examples() -> Any:
    """Return RTE's stand-in as gptkit holds it: 2,490 sequences, labels 0 and 1."""
    import numpy as np

    from gptkit.tasks.encoding import EncodedExamples

    draw = np.random.default_rng(0)
    lengths = np.interp(draw.random(EXAMPLES), np.linspace(0, 1, len(LENGTHS)), LENGTHS).astype(np.int64)
    offsets = np.concatenate([[0], lengths.cumsum()])
    ids = draw.integers(0, VOCABULARY, offsets[-1], dtype=np.int32)
    ids[offsets[:-1]], ids[offsets[:-1] + lengths * 3 // 4], ids[offsets[1:] - 1] = START, DELIMITER, EXTRACT
    return EncodedExamples(ids, offsets, 1, draw.integers(0, 2, EXAMPLES), {}, 0)


def hf_step(precision: str, *, by_length: bool, compiles: bool) -> Step:
    """Return a step of the plain loop."""
    import torch
    from torch.nn import functional as F
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY + 3, use_cache=False, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    model = GPT2LMHeadModel(config).train()
    head = torch.nn.Linear(config.n_embd, 2)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=6.25e-5, fused=True)
    forward = torch.compile(model, dynamic=True) if compiles else model
    batches = batches_by_length() if by_length else batches_in_order()

    def step() -> None:
        ids, extract, labels = next(batches)
        real = torch.arange(ids.shape[1]) <= extract[:, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = forward(ids, attention_mask=real.long(), labels=ids.where(real, -100), output_hidden_states=True)
            state = output.hidden_states[-1][torch.arange(len(ids)), extract]
            loss = F.cross_entropy(head(state).float(), labels) + LM_COEF * output.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def batches_in_order() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the batches that gptkit takes, in its order."""
    from gptkit.text.blocks import block_order

    order = block_order(0, 0, EXAMPLES)
    for turn in itertools.count():
        yield padded(order[turn * BATCH : (turn + 1) * BATCH])


def batches_by_length() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield again and again the batch of those examples whose lengths are closest to the mean of all."""
    lengths = examples().lengths
    by_length = lengths.argsort(kind="stable")
    middle = int(lengths[by_length].searchsorted(lengths.mean()))
    return itertools.repeat(padded(by_length[middle - BATCH // 2 : middle + BATCH // 2]))


def padded(indices: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids (example, length), the place of each example's last token, and labels, each (example,)."""
    import torch

    chosen = examples().select(indices)
    ids, extract, labels = chosen["input_ids"][:, 0], chosen["extract"][:, 0], chosen["labels"]
    return torch.from_numpy(ids), torch.from_numpy(extract), torch.from_numpy(labels)


def gptkit_step(precision: str) -> Step:
    import torch

    from gptkit.finetune.inputs import add_task_head, head_config
    from gptkit.finetune.job import CPU_TOKENS, double_heads_loss, finetuning_batches
    from gptkit.finetune.options import FinetuneOptions
    from gptkit.model.configuration_gpt import GPTConfig
    from gptkit.model.modeling_gpt import GPTForCausalLM
    from gptkit.training.memory import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    head = head_config(task="rte", format="entailment", labels=("0", "1"), markers=(START, DELIMITER, EXTRACT))
    model = add_task_head(GPTForCausalLM(GPTConfig(vocab_size=VOCABULARY)), head, seed=0)
    model.set_dropout(0.0)
    batches = finetuning_batches(examples(), batch_size=BATCH, seed=0, micro_batch=BATCH, padded_tokens=CPU_TOKENS)
    loss = partial(double_heads_loss, lm_coef=LM_COEF)
    return gptkit_steps(model, batches, loss, FinetuneOptions(task="rte"), precision)


if __name__ == "__main__":
    main()
