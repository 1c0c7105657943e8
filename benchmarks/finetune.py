"""Fine-tuning speed beside a plain HF loop, in one run: gpt2-small's shape, RTE's lengths, lm_coef 0.5, batch 32.

    python benchmarks/finetune.py [--steps 2] [--rounds 1] [--only NAME ...]

The examples are random tokens as long as RTE's training examples are with GPT-2's tokenizer. HF's rows are the loop
that people write: GPT2LMHeadModel and a linear layer on the last token, cross-entropy of both, all logits, right
padding with an attention mask: to the longest of the set in fp32, to the longest of the batch in bf16. Ours is what
`gptkit finetune` runs. Every row takes the same batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from side_by_side import Row, compare, gptkit_steps

if TYPE_CHECKING:
    from torch import Tensor

BATCH, EXAMPLES, VOCABULARY, LM_COEF = 32, 2490, 50257, 0.5
# Tokens of RTE's 2,490 training examples, start, delimiter and extract included, at each twentieth of their order.
LENGTHS = (17, 29, 33, 37, 40, 43, 45, 48, 50, 53, 56, 59, 62, 66, 73, 85, 104, 120, 134, 156, 291)
START, DELIMITER, EXTRACT = VOCABULARY, VOCABULARY + 1, VOCABULARY + 2


def main() -> None:
    rows = (
        Row("HF fp32, padded to the longest of the set", lambda: hf_step("fp32", dynamic=False)),
        Row("HF bf16, padded to the longest of the batch", lambda: hf_step("bf16", dynamic=True)),
        Row("gptkit bf16", lambda: gptkit_step("bf16")),
    )
    compare(
        __doc__ or "", __file__, rows, peers=("HF fp32", "HF bf16"), unit="examples/s", work=BATCH, steps=2, rounds=1
    )


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


def hf_step(precision: str, *, dynamic: bool) -> Callable[[], object]:
    """Return a step of the plain loop on the batches that gptkit takes, in its order."""
    import itertools

    import torch
    from torch.nn import functional as F
    from transformers import GPT2Config, GPT2LMHeadModel

    from gptkit.text.blocks import block_order

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY + 3, use_cache=False, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    model = GPT2LMHeadModel(config).train()
    head = torch.nn.Linear(config.n_embd, 2)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=6.25e-5, fused=precision != "fp32")
    data, order = examples(), block_order(0, 0, EXAMPLES)
    longest = int(data.lengths.max())
    turns = itertools.count()

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        turn = next(turns)
        chosen = data.select(order[turn * BATCH : (turn + 1) * BATCH])
        ids = torch.from_numpy(chosen["input_ids"][:, 0])  # (example, length)
        padding = 0 if dynamic else longest - ids.shape[1]
        return F.pad(ids, (0, padding)), torch.from_numpy(chosen["extract"][:, 0]), torch.from_numpy(chosen["labels"])

    def step() -> None:
        ids, extract, labels = batch()
        real = torch.arange(ids.shape[1]) <= extract[:, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = model(ids, attention_mask=real.long(), labels=ids.where(real, -100), output_hidden_states=True)
            state = output.hidden_states[-1][torch.arange(len(ids)), extract]
            loss = F.cross_entropy(head(state).float(), labels) + LM_COEF * output.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def gptkit_step(precision: str) -> Callable[[], object]:
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
