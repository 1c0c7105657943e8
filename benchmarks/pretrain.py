"""Pre-training speed beside HF's GPT2LMHeadModel, in one run: 6 layers, 384 wide, 256 positions, vocabulary 50,304.

    python benchmarks/pretrain.py [--steps 6] [--rounds 3] [--only NAME ...]

Each row is a process of its own with random tokens, 16 sequences of 256 a step; a round runs every row once, in turn,
so that a machine whose speed drifts drifts for all. Compile time is the first call's, less a later one's. HF's bf16
rows use autocast and fused AdamW, its compiled one torch.compile of the whole model; ours are what `gptkit pretrain`
runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

LAYERS, WIDTH, HEADS, POSITIONS, VOCABULARY, BATCH = 6, 384, 6, 256, 50304, 16
TOKENS = BATCH * POSITIONS
ROWS = {
    "HF fp32, eager": ("hf", "fp32", False),
    "HF bf16, fused AdamW": ("hf", "bf16", False),
    "HF bf16, fused AdamW, torch.compile": ("hf", "bf16", True),
    "gptkit bf16": ("gptkit", "bf16", False),
    "gptkit bf16, compiled": ("gptkit", "bf16", True),
}

PEERS = ("HF fp32, eager", "HF bf16, fused AdamW, torch.compile")


def main() -> None:
    options = parsed_options()
    if options.row:
        print(json.dumps(measure(*ROWS[options.row], steps=options.steps)))
        return
    names = options.only or list(ROWS)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            command = [sys.executable, __file__, "--row", name, "--steps", str(options.steps)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    print_table(results)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a row in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(who: str, precision: str, compiles: bool, *, steps: int) -> dict[str, float]:
    """Return the median seconds of a step and the seconds of compiling."""
    step = gptkit_step(precision, compiles) if who == "gptkit" else hf_step(precision, compiles)
    first = timed(step)
    timed(step)
    seconds = [timed(step) for _ in range(steps)]
    median = statistics.median(seconds)
    return {"seconds": median, "compile_seconds": max(0.0, first - median) if compiles else 0.0}


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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
    from gptkit.training.loop import Plan, train
    from gptkit.training.memory import keep_freed_memory
    from gptkit.training.optimizers import build_optimizer
    from gptkit.training.processes import make_accelerator

    keep_freed_memory()
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS)
    model = GPTForCausalLM(config)
    model.set_dropout(0.0)
    if compiles:
        model.compile_blocks()
    ids = torch.randint(0, 50257, (BATCH, POSITIONS + 1))
    batch = {"input_ids": ids[:, :-1].contiguous(), "shift_labels": ids[:, 1:].contiguous()}
    events = train(
        model,
        lambda step: [MicroBatch(step * BATCH, TOKENS, lambda: batch)],
        language_modeling_loss,
        build_optimizer(model.named_parameters(), PretrainOptions(), precision=precision),
        lambda step: 1.0,
        Plan(steps=10**6, log_every=1, precision=precision),
        accelerator=make_accelerator("cpu"),
    )
    return lambda: next(events)


def print_table(results: dict[str, list[dict[str, float]]]) -> None:
    import torch
    import transformers

    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, Python", end=" ")
    print(f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}")
    print("| who | tokens/s: median (lowest to highest) | x HF fp32 | x HF compiled | compile s |")
    print("|---|---|---|---|---|")
    for name, rounds in results.items():
        rates = sorted(TOKENS / one["seconds"] for one in rounds)
        compile_seconds = ", ".join(f"{one['compile_seconds']:.0f}" for one in rounds)
        ratios = [ratio(results, name, peer) for peer in PEERS]
        spread = f"{statistics.median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"
        print(f"| {name} | {spread} | {' | '.join(ratios)} | {compile_seconds} |")


def ratio(results: dict[str, list[dict[str, float]]], name: str, peer: str) -> str:
    """Return the median over rounds of the peer's seconds over this row's."""
    pairs: Any = zip(results.get(peer, []), results[name], strict=False)
    ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in pairs]
    return f"{statistics.median(ratios):.2f}" if ratios else "n/a"


if __name__ == "__main__":
    main()
