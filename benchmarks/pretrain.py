"""Pre-training speed beside HF's GPT2LMHeadModel, in one run: 6 layers, 384 wide, 256 positions, vocabulary 50,304.

    python benchmarks/pretrain.py [--steps 6] [--rounds 3] [--only NAME ...]

Each row takes random tokens, 16 sequences of 256 a step. HF's bf16 rows use autocast and fused AdamW, its compiled one
torch.compile of the whole model; ours are what `gptkit pretrain` runs.
"""

from __future__ import annotations

from collections.abc import Callable

from side_by_side import Row, compare, gptkit_steps

LAYERS, WIDTH, HEADS, POSITIONS, VOCABULARY, BATCH = 6, 384, 6, 256, 50304, 16
TOKENS = BATCH * POSITIONS


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
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        use_cache=False,
        loss_type="ForCausalLM",
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=precision != "fp32")
    forward = torch.compile(model) if compiles else model
    ids = torch.randint(0, 50257, (BATCH, POSITIONS))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def gptkit_step(precision: str, compiles: bool) -> Callable[[], object]:
    import torch

    from gptkit.model.configuration_gpt import GPTConfig
    from gptkit.model.modeling_gpt import GPTForCausalLM
    from gptkit.options import PretrainOptions
    from gptkit.pretraining.objective import language_modeling_loss
    from gptkit.training.batches import MicroBatch
    from gptkit.training.memory import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS)
    model = GPTForCausalLM(config)
    model.set_dropout(0.0)
    if compiles:
        model.compile_blocks()
    ids = torch.randint(0, 50257, (BATCH, POSITIONS + 1))
    batch = {"input_ids": ids[:, :-1].contiguous(), "shift_labels": ids[:, 1:].contiguous()}
    micro_batches = [MicroBatch(0, TOKENS, lambda: batch)]
    return gptkit_steps(model, lambda step: micro_batches, language_modeling_loss, PretrainOptions(), precision)


if __name__ == "__main__":
    main()
