"""A plan as tables on the screen: every figure with how it is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.console import Console

PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations, with 16-bit weights",
    "logits": "loss: logits by chunks",
    "gathered": "gathered parameters",
    "evaluation": "more for an evaluation",
    "reserve": "library and allocator",
    "total": "one process in all",
}
FACTS = {
    "parameters": "parameters",
    "vocabulary": "vocabulary",
    "train_tokens": "training tokens there are",
    "validation_tokens": "validation tokens",
    "n_train": "training examples",
    "steps": "steps",
    "tokens_per_step": "tokens of a step",
    "tokens": "tokens to train on",
    "epochs": "epochs",
    "flops": "FLOPs",
    "micro_batch": "sequences of a forward pass",
    "evaluations": "evaluations",
}


def show(plan: Mapping[str, Any], console: Console) -> None:
    labels = plan["labels"]
    rows = [(name, _number(plan[key]), labels.get(key, "computed")) for key, name in FACTS.items() if key in plan]
    disk, here = plan["disk"], plan["here"]
    rows.append(("a checkpoint on disk", size(disk["checkpoint"]), labels["disk"]))
    kept = f"{disk['kept']} checkpoints and {disk['snapshots']} snapshots kept"
    rows.append((f"most on disk, {kept}", size(disk["most"]), labels["disk"]))
    if here is not None:
        tried = f"measured over {here['steps']} steps"
        rows.append((f"training on this {plan['device']}", duration(here["train_seconds"]), tried))
        rows.append((f"tokens/s on this {plan['device']}", _number(here["tokens_per_second"]), tried))
        rows.append(("evaluations, beside it", duration(here["evaluation_seconds"]), "measured on some of one"))
        if here["peak_memory"] is not None:
            rows.append(("most memory of the process, tried", size(here["peak_memory"]), tried))
    console.table("the plan", ("what", "value", "how it is known"), rows)
    memory = plan["memory"]
    where = f"memory of one of {plan['processes']} process(es) on this {plan['device']}"
    parts = [
        (name, size(memory["ddp"][key]), size(memory["fsdp2"][key]), labels[f"memory.{key}"])
        for key, name in PARTS.items()
    ]
    console.table(where, ("part", "DDP", "FSDP2", "how it is known"), parts)
    console.table(
        f"{plan['processes']} x GPU in bf16; peak and memory {labels['devices.memory']}; MFU {labels['devices.mfu']}",
        ("GPU", "memory", "DDP", "FSDP2", "fits", "micro-batch", "idle", "MFU %", "training"),
        [_gpu_row(one) for one in plan["devices"]],
    )


def _gpu_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    fits = " and ".join({"ddp": "DDP", "fsdp2": "FSDP2"}[name] for name in one["fits"]) or "neither"
    sizes = (size(one["memory"]), size(one["ddp"]), size(one["fsdp2"]))
    time = duration(one["train_seconds"])
    return (one["name"], *sizes, fits, str(one["micro_batch"]), str(one["idle"]), f"{100 * one['mfu']:.0f}", time)


def size(count: float) -> str:
    """Return bytes as a reader likes them: 12 kB, 3.4 MB, 56 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.3g} {unit}"
    return f"{count / 1e3:,.3g} kB"


def duration(seconds: float) -> str:
    """Return a time as a reader likes it: 12 s, 3.4 min, 5.6 h, 78 days."""
    for unit, factor in (("days", 2 * 86400), ("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / (86400 if unit == 'days' else factor):,.3g} {unit}"
    return f"{seconds:.3g} s"


def _number(value: float) -> str:
    if isinstance(value, int) or 1000 <= value < 1e15:
        return f"{value:,.0f}"
    return f"{value:.3g}"
