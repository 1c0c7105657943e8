"""`--dry-run`: estimates the memory, disk and time of a run, and leaves nothing on disk.

The JSON object:

    parameters, vocabulary, sequence_length, micro_batch, steps, tokens_per_step, tokens, epochs, flops, evaluations,
    device, precision, compile, processes, data_sha256; pretrain: train_tokens, validation_tokens; finetune: task,
    model, n_train, runs (seeds times variants: steps, tokens, flops and times are totals over them)
    idle       null, or a warning that some processes would have no work on this device
    memory     {"ddp": {weights, gradients, optimizer, activations, logits, gathered, evaluation, reserve, total},
               "fsdp2": ...}: bytes of one process on this device; evaluation = what it takes beyond training's peak,
               reserve = library and allocator
    disk       {checkpoint, kept, model, snapshots, most}: bytes; kept and snapshots are counts, `most` is the peak,
               while one more checkpoint is written; an FSDP2 checkpoint is one file per process, of the same total
               size
    here       null, or what a probe of real steps measured: {steps, tokens_per_second, train_seconds,
               evaluation_seconds, peak_memory}
    devices    [{name, memory, peak_flops, mfu, micro_batch, idle, ddp, fsdp2, fits, tokens_per_second,
               train_seconds}] for known GPUs; ddp and fsdp2 are bytes of one process, fits names the strategies
               whose total fits, idle counts the processes that would have no work
    labels     key -> computed, measured or assumed
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from statistics import linear_regression
from typing import Any, NamedTuple, cast

import psutil
from accelerate import Accelerator

from gptkit.console import Console
from gptkit.report.memory_plan import Workload, bytes_of, file_bytes, memory, state_on_meta, train_seconds
from gptkit.report.text import duration, size
from gptkit.training import rules
from gptkit.training.checkpoints import model_tensors
from gptkit.training.job import EvalEvent, Event, MicroBatching, StepEvent, TrainingJob
from gptkit.training.loop import train
from gptkit.training.memory import PeakMemory
from gptkit.training.options import TrainingOptions
from gptkit.training.rules import GPU_MEMORY, Hardware, known_peak
from gptkit.training.run import Session

# Model FLOPs utilization in bf16. Measured on one H100 with GPT-2 124M at 65,536 tokens per forward pass: 450,000
# tokens/s compiled, 405,000 eager (vocabulary 50,304). Eager, the 774M and 1.5B models reached 0.36 and 0.37, and the
# 124M model at 16,384 tokens per pass 0.29. Every other device and model is assumed to reach the same.
MFU = {"compiled": 0.36, "eager": 0.33}
MEASURED_ON = "H100"
RESERVE = 3 << 30  # bytes of CUDA context, cuBLAS workspaces, NCCL buffers and fragmentation; assumed

STEPS = 20  # of the probe
SECONDS = 60.0  # after which the probe ends, once it has run an evaluation
EVAL_EVERY = 5

COMPUTED, MEASURED, ASSUMED = "computed", "measured", "assumed"
PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations and 16-bit weights",
    "logits": "loss (logits in chunks)",
    "gathered": "gathered parameters",
    "evaluation": "extra for an evaluation",
    "reserve": "library and allocator",
    "total": "total of one process",
}
OF_DATA = ("vocabulary", "train_tokens", "validation_tokens", "n_train", "epochs")
LABELS = {
    **dict.fromkeys(("parameters", "flops", "evaluations", "steps", "tokens", "disk", "memory"), COMPUTED),
    **{f"memory.{part}": COMPUTED for part in PARTS},
    "memory.reserve": ASSUMED,
    "memory.total": f"{COMPUTED} except for the reserve",
    "here": MEASURED,
    "devices.memory": f"{ASSUMED} (from NVIDIA's data sheets, unverified)",
    "devices.peak_flops": f"{ASSUMED} (from NVIDIA's data sheets, unverified)",
    "devices.mfu": f"{ASSUMED}; {MEASURED} on one {MEASURED_ON} with GPT-2 124M, and eager with 774M and 1.5B",
    "devices.train_seconds": ASSUMED,
}
CPU_LABELS = {
    "memory.evaluation": f"{COMPUTED}, {ASSUMED} to come on top of the rest",
    "memory.reserve": f"{MEASURED} library, {ASSUMED} allocator",
}


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run as its command describes it; the model of `job` is on the meta device.

    `work` lacks the rows of a pass, the device and the precision. `passes_on` returns, for a device, the sequences of a
    forward pass and the passes of a step; `rows_per_step` is in the unit of --micro-batch. `baseline` is the memory in
    bytes that this process holds without the model. `facts` are the command's own figures; `data_is_read` tells whether
    those of the data are exact. `probed_job` returns the job with real weights and part of its evaluation, and how many
    times as large the whole evaluation is. The command trains `runs` of them.
    """

    options: TrainingOptions
    job: TrainingJob
    work: Workload
    passes_on: Callable[[Hardware], tuple[int, int]]
    rows_per_step: int
    tokens_per_step: float
    baseline: int
    facts: Mapping[str, Any]
    probed_job: Callable[[], tuple[TrainingJob, float]]
    data_is_read: bool = True
    runs: int = 1


def show_plan(run: PlannedRun, session: Session) -> dict[str, Any]:
    """Show and return the plan; real steps are probed if this device has the memory for them."""
    hardware, console = session.hardware, session.console
    plan = plan_of(run, hardware)
    if plan["idle"]:
        console.warn(plan["idle"])
    needed = plan["memory"]["ddp"]["total"]
    room = psutil.virtual_memory().available if hardware.kind == "cpu" else hardware.memory or needed
    if needed > room:
        sizes = f"they need about {needed / 1e9:.1f} GB, but only {room / 1e9:.1f} GB is free"
        console.warn(f"not running trial steps: {sizes}")
    else:
        console.say(f"trying up to {STEPS} steps to measure time and memory")
        job, evaluations = run.probed_job()
        add_probe(plan, probe(job, session.accelerator, run.tokens_per_step), evaluations)
    show(plan, console)
    console.say("run the same command without --dry-run to train")
    return plan


def plan_of(run: PlannedRun, hardware: Hardware) -> dict[str, Any]:
    """Return everything that needs no measurement."""
    job, plan, processes = run.job, run.job.plan, run.options.processes
    rows, micro_batches = run.passes_on(hardware)
    work = dataclasses.replace(run.work, rows=rows, device=hardware.kind, precision=plan.precision)
    state = state_on_meta(job.optimizer)
    state_bytes, model = bytes_of(state.values()), file_bytes(model_tensors(job.model))
    checkpoint = model + file_bytes(state)
    kept = plan.keep_checkpoints + (plan.best_by is not None) + (plan.decay_start is not None)
    snapshots = min(plan.steps, plan.snapshots) * run.runs
    baseline = run.baseline if hardware.kind == "cpu" else RESERVE
    steps = plan.steps * run.runs
    tokens = steps * run.tokens_per_step
    flops = tokens * job.flops_per_token
    assert plan.eval_every is not None
    return {
        "parameters": sum(parameter.numel() for parameter in job.model.parameters()),
        **run.facts,
        "sequence_length": work.length,
        "micro_batch": rows,
        "steps": steps,
        "tokens_per_step": run.tokens_per_step,
        "tokens": tokens,
        "flops": flops,
        "evaluations": -(-plan.steps // plan.eval_every) * run.runs,
        "device": plan.choices["device"],
        "precision": plan.precision,
        "compile": plan.compile,
        "processes": processes,
        "idle": rules.idle_note(micro_batches, processes, rows=run.rows_per_step),
        "memory": memory(job.model, state_bytes, work, processes=processes, baseline=baseline),
        "disk": {
            "checkpoint": checkpoint,
            "kept": kept,
            "model": model,
            "snapshots": snapshots,
            "most": (kept + 1) * checkpoint + (snapshots + 1) * model,  # a new one is written before the oldest goes
        },
        "here": None,
        "devices": [_on_gpu(run, name, state_bytes, tokens, flops) for name in GPU_MEMORY],
        "labels": {
            **LABELS,
            **({"memory.activations": f"{COMPUTED} as if eager"} if plan.compile else {}),
            **(CPU_LABELS if hardware.kind == "cpu" else {}),
            **{key: COMPUTED if run.data_is_read else ASSUMED for key in OF_DATA if key in run.facts},
        },
    }


def _on_gpu(run: PlannedRun, name: str, state_bytes: int, tokens: float, flops: float) -> dict[str, Any]:
    """Return the row of a known GPU: in bf16, compiled unless --compile is off."""
    room, processes = GPU_MEMORY[name], run.options.processes
    hardware = Hardware("cuda", name, bf16=True, compiler="g++", threads=1, memory=room)
    mfu, peak = MFU["eager" if run.options.compile == "off" else "compiled"], known_peak(hardware, "bf16")
    assert peak is not None
    rows, micro_batches = run.passes_on(hardware)
    work = dataclasses.replace(run.work, rows=rows, device="cuda", precision="bf16")
    needed = memory(run.job.model, state_bytes, work, processes=processes, baseline=RESERVE)
    totals = {strategy: parts["total"] for strategy, parts in needed.items()}
    seconds = train_seconds(flops, flops_per_second=peak * mfu, micro_batches=micro_batches, processes=processes)
    return {
        "name": name,
        "memory": room,
        "peak_flops": peak,
        "mfu": mfu,
        "micro_batch": rows,
        "idle": max(0, processes - micro_batches),
        **totals,
        "fits": [strategy for strategy, total in totals.items() if total <= room],
        "tokens_per_second": tokens / seconds,
        "train_seconds": seconds,
    }


class Probe(NamedTuple):
    """Measured costs: of a step `step_seconds` plus `token_seconds` per token, of the job's evaluation, and of memory.

    `peak_memory` is in bytes, None where the system does not report it.
    """

    steps: int
    step_seconds: float
    token_seconds: float
    evaluation_seconds: float
    peak_memory: int | None


def probe(job: TrainingJob, accelerator: Accelerator, tokens_per_step: float) -> Probe:
    """Train up to 20 steps of the job in the real loop, with an evaluation every 5.

    There are several evaluations because memory grows until steps and evaluations fit together: the next step cannot
    use everything that an evaluation freed. If steps would nominally take too long, only their first one or two
    micro-batches are trained, in turn, which separates the cost of an update from that of its tokens.
    """
    batches, plan = job.micro_batching.batches, job.plan
    speed = rules.EAGER_FLOPS.get((accelerator.device.type, "fp32" if plan.precision == "fp32" else "bf16"), 1e12)
    is_long = tokens_per_step * job.flops_per_token / speed * STEPS > SECONDS
    some = (lambda step: batches(step)[: 1 + step % 2]) if is_long else batches
    short_job = dataclasses.replace(
        job,
        micro_batching=MicroBatching(batches_of=lambda rows: some),
        schedule=lambda step: 0.0,
        plan=dataclasses.replace(plan, steps=STEPS, log_every=1, eval_every=EVAL_EVERY, save_every=None, best_by=None),
    )
    steps: list[tuple[int, float]] = []  # (tokens, seconds) of each
    evaluations: list[float] = []
    started, tokens = time.perf_counter(), 0
    events = cast("Generator[Event, None, None]", train(short_job, accelerator))
    with PeakMemory(accelerator.device) as memory, closing(events):
        for event in events:
            if isinstance(event, EvalEvent):
                evaluations.append(event.seconds)
            elif isinstance(event, StepEvent):
                steps.append((event.tokens - tokens, (event.tokens - tokens) / event.tokens_per_second))
                tokens = event.tokens
                if evaluations and time.perf_counter() - started > SECONDS:
                    break
    step_seconds, token_seconds = line_through(steps[1:]) if is_long else (0.0, _rate(steps[1:]))
    return Probe(len(steps), step_seconds, token_seconds, min(evaluations), memory.peak)


def _rate(steps: list[tuple[int, float]]) -> float:
    """Return the mean seconds per token."""
    return sum(seconds for _, seconds in steps) / sum(tokens for tokens, _ in steps)


def line_through(steps: list[tuple[int, float]]) -> tuple[float, float]:
    """Return (seconds per step, seconds per token) by least squares of (tokens, seconds).

    The slope is at most the mean seconds per token, and equal to it if all steps have the same tokens.
    """
    tokens, seconds = zip(*steps, strict=True)
    slope = _rate(steps)
    if len(set(tokens)) > 1:
        slope = min(slope, linear_regression(tokens, seconds).slope)
    return (sum(seconds) - slope * sum(tokens)) / len(steps), slope


def add_probe(plan: dict[str, Any], found: Probe, evaluations: float) -> None:
    """Add to the plan what the probe measured; a full evaluation takes `evaluations` times as long as its own.

    On a CPU, memory beyond the computed parts is added to the reserve: the allocator holds it.
    """
    is_cpu = plan["device"] == "cpu"
    speedup = 1 if is_cpu else plan["processes"]  # processes on one CPU share its cores
    seconds = (plan["steps"] * found.step_seconds + plan["tokens"] * found.token_seconds) / speedup
    plan["here"] = {
        "steps": found.steps,
        "tokens_per_second": plan["tokens"] / seconds,
        "train_seconds": seconds,
        "evaluation_seconds": found.evaluation_seconds * evaluations * plan["evaluations"] / speedup,
        "peak_memory": found.peak_memory,
    }
    if is_cpu:
        beyond = max(0, (found.peak_memory or 0) - plan["memory"]["ddp"]["total"])
        for parts in plan["memory"].values():
            parts["reserve"], parts["total"] = parts["reserve"] + beyond, parts["total"] + beyond
        plan["labels"]["memory.reserve"] = MEASURED


TITLES = {
    "train_tokens": "training tokens",
    "n_train": "training examples",
    "micro_batch": "sequences per forward pass",
    "flops": "FLOPs",
}


def show(plan: Mapping[str, Any], console: Console) -> None:
    """Show the plan as tables, every figure with its source: computed, measured or assumed."""
    labels, disk, here, memory = plan["labels"], plan["disk"], plan["here"], plan["memory"]
    rows = [
        (TITLES.get(key, key.replace("_", " ")), _number(value), labels.get(key, COMPUTED))
        for key, value in plan.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    rows.append(("one checkpoint on disk", size(disk["checkpoint"]), labels["disk"]))
    kept = f"{disk['kept']} checkpoints and {disk['snapshots']} snapshots kept"
    rows.append((f"peak on disk, {kept}", size(disk["most"]), labels["disk"]))
    if here is not None:
        tried = f"measured over {here['steps']} steps"
        rows.append((f"training time on this {plan['device']}", duration(here["train_seconds"]), tried))
        rows.append((f"tokens/s on this {plan['device']}", _number(here["tokens_per_second"]), tried))
        rows.append(("plus evaluations", duration(here["evaluation_seconds"]), "measured on part of one"))
        if here["peak_memory"] is not None:
            rows.append(("peak memory of this process", size(here["peak_memory"]), tried))
    console.table("the plan", ("figure", "value", "source"), rows)
    parts = [
        (name, size(memory["ddp"][key]), size(memory["fsdp2"][key]), labels[f"memory.{key}"])
        for key, name in PARTS.items()
    ]
    where = f"memory of each of {plan['processes']} process(es) on this {plan['device']}"
    console.table(where, ("part", "DDP", "FSDP2", "source"), parts)
    gpus = [
        (
            gpu["name"],
            *(size(gpu[key]) for key in ("memory", "ddp", "fsdp2")),
            " and ".join(strategy.upper() for strategy in gpu["fits"]) or "neither",
            *(str(gpu[key]) for key in ("micro_batch", "idle")),
            f"{100 * gpu['mfu']:.0f}",
            duration(gpu["train_seconds"]),
        )
        for gpu in plan["devices"]
    ]
    console.table(
        f"{plan['processes']} x GPU in bf16; peak and memory {labels['devices.memory']}; MFU {labels['devices.mfu']}",
        ("GPU", "memory", "DDP", "FSDP2", "fits", "micro-batch", "idle", "MFU %", "training"),
        gpus,
    )


def _number(value: float) -> str:
    if isinstance(value, int) or 1000 <= value < 1e15:
        return f"{value:,.0f}"
    return f"{value:.3g}"
