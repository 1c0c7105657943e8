"""Expected times of GPT-1 on BooksCorpus and GPT-2 XL, beside what was published; written to benchmarks/scaling.md.

    python benchmarks/scaling.py > benchmarks/scaling.md

Every figure comes from the functions behind `gptkit pretrain --dry-run`; nothing is trained.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from gptkit.commands.dry_run import gpu_rows, shape_of
from gptkit.commands.planned_tables import duration, size
from gptkit.model.lm_loss import CHUNK_ELEMENTS
from gptkit.model.loading import config_from
from gptkit.model.modeling_gpt import DENSE_LENGTH, GPTForCausalLM
from gptkit.options import PretrainOptions
from gptkit.pretraining.inputs import flops_per_token
from gptkit.training import planning
from gptkit.training.devices import DEVICES, MEASURED_ON, MFU, RESERVE
from gptkit.training.hardware import known_peak
from gptkit.training.optimizers import build_optimizer
from gptkit.training.planning import STRATEGIES, Pass, Strategy


class Work(NamedTuple):
    """A published training run: `tokens_how` says whence its tokens are known, `published` tells of its time."""

    name: str
    preset: str
    vocabulary: int
    length: int
    tokens_per_step: int
    tokens: float
    tokens_how: str
    optimizer: str
    published: tuple[str, ...]


GPT1_TOKENS = 100 * 984_846_357 * 1.15
RUNS = (
    Work(
        "GPT-1 on BooksCorpus",
        "gpt1",
        40478,
        512,
        64 * 512,
        GPT1_TOKENS,
        "100 epochs (GPT-1 paper, 4.1) of 984,846,357 words (BookCorpus paper, table 2); 1.15 tokens a word assumed, "
        "with the published figure in view: that the two agree proves nothing",
        "openai-adam",
        ("8 GPUs, one month, 0.96 petaflop/s-days (OpenAI's announcement, June 2018; GPT-1's model card)",),
    ),
    Work(
        "GPT-2 124M, 10 billion tokens",
        "gpt2-small",
        50257,
        1024,
        524288,
        19073 * 524288,
        "build-nanogpt: 19,073 steps of 524,288 tokens",
        "adamw",
        ("8 x A100 80 GB: about 90 minutes, 20 dollars, by llm.c (its discussion 481)",),
    ),
    Work(
        "GPT-2 124M, 300 billion tokens",
        "gpt2-small",
        50257,
        1024,
        491520,
        600000 * 491520,
        "nanoGPT: 600,000 steps of 491,520 tokens",
        "adamw",
        ("8 x A100 40 GB: about 4 days (nanoGPT's README)",),
    ),
    Work(
        "GPT-2 XL, 32 billion tokens",
        "gpt2-xl",
        50257,
        1024,
        1048576,
        32000 * 1048576,
        "llm.c, scripts/run_gpt2_1558M.sh: 32,000 steps of 1,048,576 tokens",
        "adamw",
        ("8 x H100: 24 hours, 672 dollars, 2.8 s a step (llm.c, discussion 677 and scripts/run_gpt2_1558M.sh)",),
    ),
)
PROCESSES = 8


def main() -> None:
    print("# What a plan expects, beside what was published\n")
    print(f"Written by `python benchmarks/scaling.py`, torch {torch.__version__}; nothing here was trained. Labels:")
    print("**computed** from shapes, **assumed** (model FLOPs utilisation, reserve, tokens where a source is silent),")
    print(
        "**published** by others. Measured is one thing alone: GPT-2 124M on one", MEASURED_ON, "(36% MFU compiled, 33%"
    )
    print(
        "eager); each time below assumes that share of any device's peak, and that 8 devices lose nothing to exchange."
    )
    for work in RUNS:
        _print(work)
    print("\n## Data sheets\n")
    for device in DEVICES:
        print(f"- {device.name}: {device.source}")


def _print(work: Work) -> None:
    with torch.device("meta"):
        model = GPTForCausalLM(config_from(work.preset, vocab_size=work.vocabulary))
    flops = flops_per_token(model, work.length) * work.tokens
    print(f"\n## {work.name}\n")
    print("| what | value | label |\n|---|---|---|")
    print(f"| parameters | {model.num_parameters():,} | computed |")
    print(f"| tokens | {work.tokens:.4g} | {work.tokens_how} |")
    print(f"| FLOPs | {flops:.3g} ({flops / 8.64e19:,.3g} petaflop/s-days) | computed |")
    print("".join(f"| time, published | {line} | published |\n" for line in work.published))
    print(f"| {PROCESSES} x | micro-batch | DDP, one device | FSDP2, one device | fits | time at MFU 36% |")
    print("|---|---|---|---|---|---|")
    for row in _device_rows(work, model, flops):
        print(f"| {' | '.join(row)} |")
    print("\nMemory is computed but for the reserve, which is assumed; times are assumed.")


def _device_rows(work: Work, model: GPTForCausalLM, flops: float) -> list[tuple[str, ...]]:
    options = PretrainOptions(optimizer=work.optimizer)  # type: ignore[arg-type]
    state = planning.state_on_meta(build_optimizer(model.named_parameters(), options))
    sequences, rows = work.tokens_per_step // work.length, []
    for device in DEVICES:
        hardware = device.hardware()
        share = sequences // PROCESSES
        most = gpu_rows(options, model, hardware, rows=share, length=work.length)
        one = Pass(
            rows=max(rows_of for rows_of in range(1, most + 1) if share % rows_of == 0),
            length=work.length,
            precision="bf16",
            device="cuda",
            dense_length=DENSE_LENGTH,
            chunk_elements=CHUNK_ELEMENTS["cuda"],
        )

        def total(strategy: Strategy, one: Pass = one) -> int:
            shape = shape_of(model)
            found = planning.memory(model, state, shape, one, strategy=strategy, processes=PROCESSES)
            return found.total + RESERVE

        totals = {strategy: total(strategy) for strategy in STRATEGIES}
        fits = [strategy for strategy in STRATEGIES if totals[strategy] <= device.memory]
        occupied = planning.occupancy(-(-sequences // one.rows), PROCESSES)
        peak = known_peak(hardware, "bf16")
        assert peak is not None
        seconds = planning.train_seconds(flops, peak=peak, mfu=MFU["compiled"], processes=PROCESSES, occupied=occupied)
        sizes = (size(totals["ddp"]), size(totals["fsdp2"]))
        rows.append((device.name, str(one.rows), *sizes, ", ".join(fits) or "neither", duration(seconds)))
    return rows


if __name__ == "__main__":
    main()
