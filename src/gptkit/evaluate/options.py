"""The options of `gptkit eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptkit.options import DeviceName, ReadingOptions, option


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ReadingOptions):
    """Score a model, zero-shot or fine-tuned, by the papers' protocols, and gate it against a baseline.

    gptkit tasks lists the names of tasks and protocols. Exit codes: 0 passed or inconclusive; 3 worse than the
    baseline, or short of a minimum; 4 not comparable with the baseline, or not defined (n/a).
    """

    task: tuple[str, ...] = option(
        (),
        "NAME, NAME/PROTOCOL or a task's YAML file; repeatable [default: a fine-tuned model's own task, else the "
        "text that the model's run held out].",
        metavar="NAME|FILE",
    )
    suite: Path | None = option(
        None,
        "A YAML file instead of --task: `tasks:`, and under it a list of tasks with data, limit, floor and minimum "
        "(an upper bound where lower is better).",
        metavar="FILE",
    )
    data: str | None = option(
        None,
        "The task's data as its authors distribute it: a folder or file, or a folder with a subfolder per task "
        "[default for the model's own task: where its run found it].",
        metavar="DIR|FILE|hf:NAME",
    )
    model: str | None = option(
        None,
        "A model or run directory, or hf:NAME [default: the newest run whose model fits the tasks].",
        short="-m",
        metavar="MODEL",
    )
    limit: int | None = option(None, "Evaluate only the first N examples.", minimum=1)
    split: str = option("dev", "Split of a fine-tuned model's own task.")
    stride: int | None = option(None, "Window stride in tokens, for perplexity.", minimum=1)
    seed: int = option(0, "Seed for sampled texts.", minimum=0, maximum=2**31 - 1)

    baseline: Path | None = option(
        None, "Compare with this --output file of an earlier run.", panel="Gate", metavar="FILE"
    )
    floor: float | None = option(
        None,
        "Smallest drop that counts in each protocol's first measure, in its unit [default: per measure].",
        panel="Gate",
        minimum=0,
    )
    junit: Path | None = option(None, "Write the verdicts as JUnit XML.", panel="Gate", metavar="FILE")
    summary: Path | None = option(None, "Write the verdicts as Markdown.", panel="Gate", metavar="FILE")

    contamination: str | None = option(
        None, "Also search this training corpus for the examples' 8-grams.", panel="Analysis", metavar="CORPUS"
    )
    all_checkpoints: Path | None = option(
        None,
        "Evaluate every checkpoint of a run, and plot the scores as in figure 2 of the GPT-1 paper.",
        panel="Analysis",
        metavar="RUN",
    )

    batch_size: int | None = option(
        None, "Maximum sequences per batch [default: chosen by length].", panel="Speed", minimum=1
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Arithmetic precision; auto = fp32, the same scores everywhere; bf16 is faster, but changes the third digit.",
        panel="Speed",
    )
    device: DeviceName = option("auto", "Device; auto = a GPU if there is one.", panel="Speed")

    output: Path | None = option(
        None,
        "Write the results and every item's score, to serve as a baseline for later runs.",
        panel="Run",
        short="-o",
        metavar="FILE",
    )
