"""Several runs as one result: over seeds, and over the variants of GPT-1's ablation (GPT-1 paper, table 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.finetune.statistics import bootstrap_interval, mean_std, paired_interval
from gptkit.tasks.task import Task

# What each variant changes of the run as it was asked for.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "no_aux": {"lm_coef": 0.0},
    "no_pretraining": {"transfer_layers": "none"},
}
PER_SEED = (
    "seed",
    "metrics",
    "val_loss",
    "best_epoch",
    "best_step",
    "train_loss",
    "tokens_per_second",
    "mfu",
    "train_seconds",
    "resumed_from",
)
SUMMED = ("steps", "tokens", "train_seconds")


def over_seeds(task: Task, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results of runs that differ by their seed alone as one result: of several, what they share.

    `metrics` are means; `std` (sample standard deviation) and `interval` (95%, bootstrap) are there from two runs on.
    Steps, tokens and seconds are sums; `model_dir` is the best one's.
    """
    values = {name: [run["metrics"][name] for run in runs] for name in task.metrics}
    result = {
        **{key: value for key, value in runs[0].items() if len(runs) == 1 or key not in PER_SEED},
        **{key: sum(run[key] for run in runs) for key in SUMMED},
        "seed": runs[0]["seed"],
        "metrics": {name: mean_std(each)[0] for name, each in values.items()},
        "per_seed": [{key: run[key] for key in (*PER_SEED, "model_dir")} for run in runs],
        "model_dir": best_of(task, runs)["model_dir"],
    }
    if len(runs) > 1:
        result["std"] = {name: mean_std(each)[1] for name, each in values.items()}
        result["interval"] = {name: list(bootstrap_interval(each)) for name, each in values.items()}
    return result


def study_result(task: Task, variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the full variant's result with all variants, and what the full one gains on each other, seed by seed.

    Steps, tokens and seconds are sums over all variants.
    """
    metric = task.metrics[0]
    scores = {name: [one["metrics"][metric] for one in each["per_seed"]] for name, each in variants.items()}
    differences = {}
    for variant in [name for name in variants if name != "full"]:
        gains = [ours - theirs for ours, theirs in zip(scores["full"], scores[variant], strict=True)]
        differences[variant] = {"metric": metric, "mean": mean_std(gains)[0]}
        if len(gains) > 1:
            differences[variant]["interval"] = list(paired_interval(scores["full"], scores[variant]))
    sums = {key: sum(each[key] for each in variants.values()) for key in SUMMED}
    return {**variants["full"], **sums, "variants": dict(variants), "full_minus": differences}


def best_of(task: Task, runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the run of the best seed by the dev metric, the first of equals."""
    return max(runs, key=lambda one: one["metrics"][task.metrics[0]])
