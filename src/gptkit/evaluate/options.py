"""The options of `gptkit eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptkit.options import DeviceName, OutputOptions, option


@dataclass(frozen=True, kw_only=True)
class EvalOptions(OutputOptions):
    """Score a model, zero-shot or fine-tuned, by the papers' protocols; pass or fail it against a baseline.

    gptkit tasks lists the names of tasks and protocols. Exit code 0: passed, or too few items to tell; 3: worse than
    the baseline; 4: nothing to compare.
    """

    task: tuple[str, ...] = option(
        (),
        "NAME, NAME/PROTOCOL or a task's YAML file; repeatable [default: the model's own task, else perplexity].",
        metavar="NAME|FILE",
    )
    suite: Path | None = option(None, "A YAML list of tasks with data and bounds, instead of --task.", metavar="FILE")
    data: str | None = option(
        None,
        "A folder (or file) of the task's data as its authors distribute it, or of one folder per task "
        "[default for the model's own task: where its run found it].",
        metavar="DIR|FILE|hf:NAME",
    )
    model: str | None = option(
        None,
        "A model or run directory, or hf:NAME [default: the newest run that can do it].",
        short="-m",
        metavar="MODEL",
    )
    limit: int | None = option(None, "Evaluate only the first N examples.", minimum=1)
    split: str = option("dev", "The split of a fine-tuned model's task.")
    stride: int | None = option(None, "Window stride in tokens, for perplexity.", minimum=1)
    seed: int = option(0, "Seed for sampled texts.", minimum=0, maximum=2**31 - 1)

    baseline: Path | None = option(
        None,
        "Compare with this --output file of an earlier run.",
        panel="Gate",
        metavar="FILE",
    )
    floor: float | None = option(
        None,
        "Smallest drop that counts, in the metric's unit [default: per metric].",
        panel="Gate",
        minimum=0,
    )
    junit: Path | None = option(None, "Write the verdicts as JUnit XML.", panel="Gate", metavar="FILE")
    summary: Path | None = option(None, "Write the verdicts as Markdown.", panel="Gate", metavar="FILE")

    contamination: str | None = option(
        None, "Also look for the examples' 8-grams in this training corpus.", panel="Analysis", metavar="CORPUS"
    )
    all_checkpoints: Path | None = option(
        None, "Evaluate each checkpoint of a run, and draw GPT-1's figure 2.", panel="Analysis", metavar="RUN"
    )

    batch_size: int | None = option(None, "Most sequences at once [default: by length].", panel="Speed", minimum=1)
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Arithmetic; auto = fp32, the same numbers everywhere; bf16 is faster, but they differ in their third digit.",
        panel="Speed",
    )
    device: DeviceName = option("auto", "Where to compute.", panel="Speed")

    output: Path | None = option(
        None,
        "Write results and the score of every item: a baseline for later.",
        panel="Run",
        short="-o",
        metavar="FILE",
    )
