"""Pre-training speed beside HF's GPT2LMHeadModel in one run, on the GPU where there is one, and shares of the peak.

    python benchmarks/pretrain.py [--part NAME ...] [--rounds 3] [--steps N] [--only NAME ...] [--json FILE]

Parts 50304 and 256 are vocabularies: on a CPU of a model of 6 layers, 384 wide, which takes 16 random sequences of 256
tokens a step; on a GPU of one of GPT-2 small's shape with 32 of 1,024. Part laptop is the preset's shape, with 16 of
128 tokens and vocabulary 256. HF's bf16 rows use autocast; they and the compiled ones use fused AdamW, and
torch.compile takes the whole model. Ours are what `gptkit pretrain` runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from side_by_side import Part, Row, Step, compare, gptkit_steps

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Size(NamedTuple):
    vocabulary: int
    layers: int = 6
    width: int = 384
    heads: int = 6
    positions: int = 256
    batch: int = 16

    @property
    def tokens(self) -> int:
        return self.batch * self.positions


SIZES = {
    "50304": Size(50304),
    "256": Size(256),
    "laptop": Size(256, layers=3, width=192, heads=6, positions=128),
}
if DEVICE == "cuda":
    SIZES = {name: Size(int(name), 12, 768, 12, 1024, 32) for name in ("50304", "256")}
STEPS = {"50304": 2, "256": 3, "laptop": 12}  # of a turn
PEERS = ("HF fp32", "HF fp32, compiled", "HF bf16", "HF bf16, compiled")
OURS = ("gptkit fp32", "gptkit fp32, compiled", "gptkit bf16", "gptkit bf16, compiled")
ASKED = {"50304": {name: {"HF fp32": 3.5} for name in OURS if "bf16" in name}}
ASKED_SHARE = {
    "50304": {name: 0.8 for name in OURS if "fp32" in name},
    "256": dict.fromkeys(OURS, 0.6),
    "laptop": dict.fromkeys(OURS, 0.6),
}


def main() -> None:
    parts = {name: part_of(name, size) for name, size in SIZES.items()}
    compare(__doc__ or "", __file__, parts, rounds=3)


def part_of(name: str, size: Size) -> Part:
    from gptkit.model.modeling_gpt import GPTForCausalLM
    from gptkit.training.rules import flops_per_token

    with torch.device("meta"):
        flops = flops_per_token(GPTForCausalLM(gptkit_config(size)), size.positions)
    return Part(
        rows={row: row_of(row, size) for row in (*PEERS, *OURS)},
        unit="tokens",
        work=size.tokens,
        steps=STEPS[name],
        flops=flops,
        asked=ASKED.get(name, {}),
        asked_share=ASKED_SHARE[name],
    )


def row_of(name: str, size: Size) -> Row:
    step = hf_step if name in PEERS else gptkit_step
    precision, compiles = "bf16" if "bf16" in name else "fp32", "compiled" in name
    return Row(lambda: step(size, precision, compiles), compiles)


def hf_step(size: Size, precision: str, compiles: bool) -> Step:
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # it warns of token ids that are never used
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=size.vocabulary,
        n_positions=size.positions,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        use_cache=False,
        loss_type="ForCausalLM",
    )
    model = GPT2LMHeadModel(config).train().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=compiles or precision != "fp32")
    forward: Callable[..., Any] = torch.compile(model) if compiles else model
    ids = torch.randint(0, min(size.vocabulary, 50257), (size.batch, size.positions), device=DEVICE)

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device

    return step


def gptkit_step(size: Size, precision: str, compiles: bool) -> Step:
    from gptkit.model.modeling_gpt import GPTForCausalLM, compile_blocks
    from gptkit.pretrain.job import language_modeling_loss
    from gptkit.pretrain.options import PretrainOptions
    from gptkit.training.batches import MicroBatch
    from gptkit.training.memory import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    model = GPTForCausalLM(gptkit_config(size)).to(DEVICE)
    model.set_dropout(0.0)
    if compiles:
        compile_blocks(model)
    ids = torch.randint(0, min(size.vocabulary, 50257), (size.batch, size.positions + 1))
    batch = {"input_ids": ids[:, :-1].contiguous(), "shift_labels": ids[:, 1:].contiguous()}
    micro_batches = [MicroBatch(0, size.tokens, lambda: batch)]
    return gptkit_steps(model, lambda step: micro_batches, language_modeling_loss, PretrainOptions(), precision, DEVICE)


def gptkit_config(size: Size) -> Any:
    from gptkit.model.configuration_gpt import GPTConfig

    return GPTConfig(
        vocab_size=size.vocabulary,
        n_positions=size.positions,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
    )


if __name__ == "__main__":
    main()
