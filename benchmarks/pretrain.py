"""Pre-training speed beside HF's GPT2LMHeadModel, in one run, on the GPU where there is one; vocabulary 50,304.

    python benchmarks/pretrain.py [--steps 6] [--rounds 3] [--only NAME ...]

On a CPU a model of 6 layers, 384 wide, takes 16 random sequences of 256 tokens a step; on a GPU one of GPT-2 small's
shape 32 of 1,024. HF's bf16 rows use autocast and fused AdamW, its compiled one torch.compile of the whole model; ours
are what `gptkit pretrain` runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from side_by_side import Row, compare, gptkit_steps

VOCABULARY = 50304


class Size(NamedTuple):
    layers: int
    width: int
    heads: int
    positions: int
    batch: int


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZE = {"cpu": Size(6, 384, 6, 256, 16), "cuda": Size(12, 768, 12, 1024, 32)}[DEVICE]
TOKENS = SIZE.batch * SIZE.positions


def main() -> None:
    rows = (
        Row("HF fp32, eager", lambda: hf_step("fp32", False)),
        Row("HF bf16, fused AdamW", lambda: hf_step("bf16", False)),
        Row("HF bf16, fused AdamW, torch.compile", lambda: hf_step("bf16", True), compiles=True),
        Row("gptkit bf16", lambda: gptkit_step("bf16", False)),
        Row("gptkit bf16, compiled", lambda: gptkit_step("bf16", True), compiles=True),
    )
    peers = ("HF fp32, eager", "HF bf16, fused AdamW, torch.compile")
    compare(__doc__ or "", __file__, rows, peers=peers, unit="tokens/s", work=TOKENS, steps=6, rounds=3)


def hf_step(precision: str, compiles: bool) -> Callable[[], object]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=SIZE.positions,
        n_embd=SIZE.width,
        n_layer=SIZE.layers,
        n_head=SIZE.heads,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        use_cache=False,
        loss_type="ForCausalLM",
    )
    model = GPT2LMHeadModel(config).train().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=precision != "fp32")
    forward = torch.compile(model) if compiles else model
    ids = torch.randint(0, 50257, (SIZE.batch, SIZE.positions), device=DEVICE)

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device

    return step


def gptkit_step(precision: str, compiles: bool) -> Callable[[], object]:
    from gptkit.model.configuration_gpt import GPTConfig
    from gptkit.model.modeling_gpt import GPTForCausalLM, compile_blocks
    from gptkit.pretrain.job import language_modeling_loss
    from gptkit.pretrain.options import PretrainOptions
    from gptkit.training.batches import MicroBatch
    from gptkit.training.memory import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=VOCABULARY,
        n_positions=SIZE.positions,
        n_embd=SIZE.width,
        n_layer=SIZE.layers,
        n_head=SIZE.heads,
    )
    model = GPTForCausalLM(config).to(DEVICE)
    model.set_dropout(0.0)
    if compiles:
        compile_blocks(model)
    ids = torch.randint(0, 50257, (SIZE.batch, SIZE.positions + 1))
    batch = {"input_ids": ids[:, :-1].contiguous(), "shift_labels": ids[:, 1:].contiguous()}
    micro_batches = [MicroBatch(0, TOKENS, lambda: batch)]
    return gptkit_steps(model, lambda step: micro_batches, language_modeling_loss, PretrainOptions(), precision, DEVICE)


if __name__ == "__main__":
    main()
