"""Expected times of GPT-1 on BooksCorpus and GPT-2 XL, beside what was published; written to benchmarks/scaling.md.

    python benchmarks/scaling.py > benchmarks/scaling.md

Every figure comes from the functions behind `gptkit pretrain --dry-run`; nothing is trained.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from gptkit.model.loading import config_from
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.pretrain.job import VALIDATION_TOKENS
from gptkit.pretrain.options import PretrainOptions
from gptkit.report.dry_run import MEASURED_ON, MFU, RESERVE, duration, size
from gptkit.report.memory_plan import Workload, bytes_of, memory, state_on_meta, train_seconds
from gptkit.training import rules
from gptkit.training.optimizers import build_optimizer
from gptkit.training.rules import GPU_MEMORY, Hardware, known_peak


class Work(NamedTuple):
    """A published training run; `tokens_how` and the pairs of `published` say what is known, and how it is known."""

    name: str
    preset: str
    vocabulary: int
    length: int
    tokens_per_step: int
    tokens: float
    tokens_how: str
    optimizer: str
    published: tuple[tuple[str, str], ...]


GPT1_TOKENS = 100 * 984_846_357 * 1.15
RUNS = (
    Work(
        "GPT-1 on BooksCorpus",
        "gpt1",
        40478,
        512,
        64 * 512,
        GPT1_TOKENS,
        "published: 100 epochs (GPT-1 paper, 4.1) of 984,846,357 words (datasheet for BookCorpus, Bandy and Vincent "
        "2021); assumed: that these are the words, and 1.15 tokens a word, chosen with the published compute in view: "
        "that the two agree proves nothing",
        "openai-adam",
        (
            (
                "8 GPUs, one month",
                "published: OpenAI's announcement of June 2018, as quoted since; the GPU is not named",
            ),
            ("0.96 petaflop/s-days", "published: GPT-1's model card"),
        ),
    ),
    Work(
        "GPT-2 124M, 10 billion tokens",
        "gpt2-small",
        50257,
        1024,
        524288,
        19073 * 524288,
        "published: 19,073 steps of 524,288 tokens (build-nanogpt)",
        "adamw",
        (("8 x A100 80 GB: about 90 minutes, by llm.c", "assumed: remembered from llm.c's discussion 481"),),
    ),
    Work(
        "GPT-2 124M, 300 billion tokens",
        "gpt2-small",
        50257,
        1024,
        491520,
        600000 * 491520,
        "published: 600,000 steps of 491,520 tokens (nanoGPT, config/train_gpt2.py)",
        "adamw",
        (("8 x A100 40 GB: about 4 days", "published: nanoGPT's README"),),
    ),
    Work(
        "GPT-2 XL, 32 billion tokens",
        "gpt2-xl",
        50257,
        1024,
        1048576,
        32000 * 1048576,
        "published: 32,000 steps of 1,048,576 tokens (llm.c, scripts/run_gpt2_1558M.sh)",
        "adamw",
        (("8 x H100 80 GB: about 24 hours, 2.8 s a step", "published: llm.c, scripts/run_gpt2_1558M.sh"),),
    ),
)
PROCESSES = 8
DATA_SHEETS = {
    "A100": "NVIDIA A100 80GB SXM data sheet (2021): BF16 312 TFLOPS, 80 GB",
    "H100": "NVIDIA H100 SXM data sheet (2023): BF16 1,979 TFLOPS with sparsity (dense: half), 80 GB",
    "H200": "NVIDIA H200 SXM data sheet (2023): BF16 1,979 TFLOPS with sparsity (dense: half), 141 GB",
    "B200": "NVIDIA DGX B200 data sheet (2024): 8 GPUs, BF16 36 PFLOPS with sparsity, 1,440 GB",
}


def main() -> None:
    print("# What a plan expects, beside what was published\n")
    print(f"Written by `python benchmarks/scaling.py`, torch {torch.__version__}; nothing here was trained. Labels:\n")
    print("- **computed**: from shapes, by the functions behind `gptkit pretrain --dry-run`")
    print("- **published**: by others, in the place that is named")
    print(f"- **measured**: MFU alone, on one {MEASURED_ON}: GPT-2 124M {MFU['compiled']:.0%} compiled and ", end="")
    print(f"{MFU['eager']:.0%} eager, 774M and 1.5B 36% and 37% eager")
    print("- **assumed**: that every device and model reaches that share of its peak and 8 devices lose nothing to")
    print(
        "  exchange; peaks and memories, which are data sheets as remembered; the reserve of each device; what says so"
    )
    for work in RUNS:
        _print(work)
    print("\n## Data sheets, as remembered\n")
    for name in GPU_MEMORY:
        print(f"- {name}: {DATA_SHEETS[name]}")


def _print(work: Work) -> None:
    with torch.device("meta"):
        model = GPTForCausalLM(config_from(work.preset, vocab_size=work.vocabulary))
    flops = rules.flops_per_token(model, work.length) * work.tokens
    print(f"\n## {work.name}\n")
    print("| what | value | label |\n|---|---|---|")
    print(f"| parameters | {model.num_parameters():,} | computed |")
    print(f"| tokens | {work.tokens:.4g} | {work.tokens_how} |")
    print(f"| FLOPs | {flops:.3g} ({flops / 8.64e19:,.3g} petaflop/s-days) | computed |")
    print("".join(f"| time or compute of theirs | {value} | {how} |\n" for value, how in work.published))
    print(f"| {PROCESSES} x | micro-batch | DDP, one device | FSDP2, one device | fits | time at MFU", end="")
    print(f" {MFU['compiled']:.0%} |")
    print("|---|---|---|---|---|---|")
    for row in _device_rows(work, model, flops):
        print(f"| {' | '.join(row)} |")
    print(f"\nMemory is computed, with a reserve of {size(RESERVE)} that is assumed; times and what fits are assumed.")


def _device_rows(work: Work, model: GPTForCausalLM, flops: float) -> list[tuple[str, ...]]:
    options = PretrainOptions(optimizer=work.optimizer)  # type: ignore[arg-type]
    state = state_on_meta(build_optimizer(model.named_parameters(), options))
    state_bytes, sequences = bytes_of(state.values()), work.tokens_per_step // work.length
    rows: list[tuple[str, ...]] = []
    for name, room in GPU_MEMORY.items():
        hardware = Hardware("cuda", name, bf16=True, compiler="g++", threads=1, memory=room)
        share = sequences // PROCESSES
        most = rules.choose_micro_batch(
            hardware,
            model,
            rows=rules.micro_batch_rows(share, options.num_processes or 1),
            sequence_length=work.length,
        )
        workload = Workload(
            rows=max(count for count in range(1, most + 1) if share % count == 0),
            length=work.length,
            evaluation_tokens=VALIDATION_TOKENS,
        )
        needed = memory(model, state_bytes, workload, processes=PROCESSES, baseline=RESERVE)
        totals = {strategy: parts["total"] for strategy, parts in needed.items()}
        fits = [strategy for strategy, total in totals.items() if total <= room]
        peak = known_peak(hardware, "bf16")
        assert peak is not None
        seconds = train_seconds(
            flops,
            flops_per_second=peak * MFU["compiled"],
            micro_batches=-(-sequences // workload.rows),
            processes=PROCESSES,
        )
        sizes = (size(totals["ddp"]), size(totals["fsdp2"]))
        rows.append((name, str(workload.rows), *sizes, ", ".join(fits) or "neither", duration(seconds)))
    return rows


if __name__ == "__main__":
    main()
