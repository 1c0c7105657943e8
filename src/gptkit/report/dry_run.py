"""`--dry-run`: what a run will need, as far as anybody can know before it; nothing of it stays on the disk.

The JSON object:

    parameters, vocabulary, sequence_length, micro_batch, steps, tokens_per_step, tokens, epochs, flops, evaluations,
    device, precision, compile, processes, data_sha256; pretrain: train_tokens, validation_tokens; finetune: task,
    model, n_train, runs (seeds times variants: steps, tokens, flops and times are of all)
    idle       null, or the line on processes that would have no work on the device that is here
    memory     {"ddp": {weights, gradients, optimizer, activations, logits, gathered, evaluation, reserve, total},
               "fsdp2": ...}: bytes of one process on the device that is here; evaluation = what it takes beyond
               training's peak, reserve = library and allocator
    disk       {checkpoint, kept, model, snapshots, most}: bytes, but for the numbers kept and snapshots; `most` while
               one more checkpoint is being written; with FSDP2 a checkpoint is a file for each process, of the same
               total size
    here       null, or what a probe of real steps measured: {steps, tokens_per_second, train_seconds,
               evaluation_seconds, peak_memory}
    devices    [{name, memory, peak_flops, mfu, micro_batch, idle, ddp, fsdp2, fits, tokens_per_second,
               train_seconds}]: GPUs that are known; ddp and fsdp2 are bytes of a process, fits names the strategies
               that leave room, idle counts the processes that would have no work
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
from gptkit.report.memory_plan import STRATEGIES, Workload, bytes_of, file_bytes, memory, state_on_meta, train_seconds
from gptkit.training import rules
from gptkit.training.checkpoints import model_tensors
from gptkit.training.job import EvalEvent, Event, MicroBatching, StepEvent, TrainingJob
from gptkit.training.loop import train
from gptkit.training.memory import PeakMemory
from gptkit.training.options import TrainingOptions
from gptkit.training.rules import GPU_MEMORY, Hardware, known_peak
from gptkit.training.run import Session

# Model FLOPs utilisation in bf16. Measured on one H100 with GPT-2 124M, 65,536 tokens a forward pass: 450,000 tokens/s
# compiled, 405,000 eager (vocabulary 50,304); the 774M and 1.5B models reached 0.36 and 0.37 eager, the 124M one with
# 16,384 tokens a pass 0.29. For every other device and model it is an assumption.
MFU = {"compiled": 0.36, "eager": 0.33}
MEASURED_ON = "H100"
RESERVE = 3 << 30  # bytes: CUDA's context, cuBLAS' workspaces, NCCL's buffers, what the allocator cannot use; assumed

STEPS = 20
SECONDS = 60.0  # after which no further step begins, once there was an evaluation
EVERY = 5  # steps to an evaluation

COMPUTED, MEASURED, ASSUMED = "computed", "measured", "assumed"
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
LABELS = {
    **dict.fromkeys(("parameters", "flops", "evaluations", "steps", "tokens", "disk", "memory"), COMPUTED),
    **{f"memory.{part}": COMPUTED for part in PARTS},
    "memory.reserve": ASSUMED,
    "memory.total": f"{COMPUTED} but for the reserve",
    "here": MEASURED,
    "devices.memory": f"{ASSUMED}, as data sheets are remembered",
    "devices.peak_flops": f"{ASSUMED}, as data sheets are remembered",
    "devices.mfu": f"{ASSUMED}; {MEASURED} on one {MEASURED_ON} with GPT-2 124M, and eager with 774M and 1.5B",
    "devices.train_seconds": ASSUMED,
}
CPU_LABELS = {
    "memory.evaluation": f"{COMPUTED}, {ASSUMED} to lie beside the rest",
    "memory.reserve": f"{MEASURED} library, {ASSUMED} allocator",
}


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run as its verb knows it; the model of `job` has shapes and no memory.

    `work` lacks the rows of a pass, device and precision; `passes_on` gives for a device how many sequences a forward
    pass takes, and in how many passes a step is split. `rows_per_step` are what --micro-batch counts, `baseline` the
    bytes that this process holds without the model, and `facts` what else to tell, of all `runs`. `probed_job` gives
    the job with weights and some of its evaluation, and how many times as large the whole evaluation is.
    """

    options: TrainingOptions
    job: TrainingJob
    work: Workload
    passes_on: Callable[[Hardware], tuple[int, int]]
    rows_per_step: int
    baseline: int
    facts: Mapping[str, Any]
    labels: Mapping[str, str]
    probed_job: Callable[[], tuple[TrainingJob, float]]
    runs: int = 1

    @property
    def processes(self) -> int:
        return self.options.num_processes or 1

    @property
    def flops(self) -> float:
        flops: float = self.facts["tokens"] * self.job.flops_per_token
        return flops


def show_plan(run: PlannedRun, session: Session) -> dict[str, Any]:
    """Return and show the plan; a probe of real steps runs where the device that is here has room for them."""
    hardware, console = session.hardware, session.console
    plan = plan_of(run, hardware)
    if plan["idle"]:
        console.warn(plan["idle"])
    needed = plan["memory"]["ddp"]["total"]
    room = psutil.virtual_memory().available if hardware.kind == "cpu" else hardware.memory or needed
    if needed > room:
        console.warn(f"no step is tried here: it would take about {needed / 1e9:.1f} GB, {room / 1e9:.1f} GB are free")
    else:
        console.say("trying up to 20 steps, for their time and memory")
        job, share = run.probed_job()
        add_probe(plan, probe(job, session.accelerator, run.facts["tokens_per_step"]), share)
    show(plan, console)
    console.say("the same command without --dry-run trains it")
    return plan


def plan_of(run: PlannedRun, hardware: Hardware) -> dict[str, Any]:
    """Return what arithmetic tells."""
    job, plan = run.job, run.job.plan
    rows, micro_batches = run.passes_on(hardware)
    work = dataclasses.replace(run.work, rows=rows, device=hardware.kind, precision=plan.precision)
    state = state_on_meta(job.optimizer)
    state_bytes, model = bytes_of(state.values()), file_bytes(model_tensors(job.model))
    checkpoint = model + file_bytes(state)
    kept = plan.keep_checkpoints + (plan.best_by is not None) + (plan.decay_start is not None)
    snapshots = min(plan.steps, plan.snapshots) * run.runs
    baseline = run.baseline if hardware.kind == "cpu" else RESERVE
    assert plan.eval_every is not None
    return {
        **run.facts,
        "micro_batch": rows,
        "flops": run.flops,
        "evaluations": -(-plan.steps // plan.eval_every) * run.runs,
        "device": plan.choices["device"],
        "precision": plan.precision,
        "compile": plan.compile,
        "processes": run.processes,
        "idle": rules.idle_note(micro_batches, run.processes, rows=run.rows_per_step),
        "memory": _memory(run, state_bytes, work, baseline),
        "disk": {
            "checkpoint": checkpoint,
            "kept": kept,
            "model": model,
            "snapshots": snapshots,
            "most": (kept + 1) * checkpoint + (snapshots + 1) * model,  # one more of each is written first
        },
        "here": None,
        "devices": [_on_gpu(run, state_bytes, name) for name in GPU_MEMORY],
        "labels": {
            **LABELS,
            **({"memory.activations": f"{COMPUTED} as if eager"} if plan.compile else {}),
            **(CPU_LABELS if hardware.kind == "cpu" else {}),
            **run.labels,
        },
    }


def _memory(run: PlannedRun, state_bytes: int, work: Workload, baseline: int) -> dict[str, dict[str, int]]:
    return {
        strategy: memory(
            run.job.model, state_bytes, work, strategy=strategy, processes=run.processes, baseline=baseline
        )
        for strategy in STRATEGIES
    }


def _on_gpu(run: PlannedRun, state_bytes: int, name: str) -> dict[str, Any]:
    """Return a GPU's row: always bf16, compiled where the run would be or chooses by itself."""
    room, processes = GPU_MEMORY[name], run.processes
    hardware = Hardware("cuda", name, bf16=True, compiler="g++", threads=1, memory=room)
    mfu, peak = MFU["eager" if run.options.compile == "off" else "compiled"], known_peak(hardware, "bf16")
    assert peak is not None
    rows, micro_batches = run.passes_on(hardware)
    work = dataclasses.replace(run.work, rows=rows, device="cuda", precision="bf16")
    totals = {name: parts["total"] for name, parts in _memory(run, state_bytes, work, RESERVE).items()}
    seconds = train_seconds(run.flops, flops_per_second=peak * mfu, micro_batches=micro_batches, processes=processes)
    return {
        "name": name,
        "memory": room,
        "peak_flops": peak,
        "mfu": mfu,
        "micro_batch": rows,
        "idle": max(0, processes - micro_batches),
        **totals,
        "fits": [strategy for strategy, total in totals.items() if total <= room],
        "tokens_per_second": run.facts["tokens"] / seconds,
        "train_seconds": seconds,
    }


class Probe(NamedTuple):
    """What was measured: a step costs `step_seconds` and `token_seconds` for each of its tokens.

    `evaluation_seconds` are of the job's evaluation; `peak_memory` in bytes, None where nothing tells it.
    """

    steps: int
    step_seconds: float
    token_seconds: float
    evaluation_seconds: float
    peak_memory: int | None


def probe(job: TrainingJob, accelerator: Accelerator, tokens_per_step: float) -> Probe:
    """Train up to 20 steps, with an evaluation every 5, in the loop and the arithmetic of the run.

    Several evaluations, because what one frees is not what the next step needs: memory grows until they fit together.
    Where a step nominally takes longer than the time allows, its first micro-batches stand for it: one and two of them
    in turn, which tells the update's share from the tokens'.
    """
    batches, plan = job.micro_batching.batches, job.plan
    speed = rules.EAGER_FLOPS.get((accelerator.device.type, "fp32" if plan.precision == "fp32" else "bf16"), 1e12)
    is_long = tokens_per_step * job.flops_per_token / speed * STEPS > SECONDS
    some = (lambda step: batches(step)[: 1 + step % 2]) if is_long else batches
    short_job = dataclasses.replace(
        job,
        micro_batching=MicroBatching(batches_of=lambda rows: some),
        schedule=lambda step: 0.0,
        plan=dataclasses.replace(plan, steps=STEPS, log_every=1, eval_every=EVERY, save_every=None, best_by=None),
    )
    steps: list[tuple[int, float]] = []  # tokens and seconds of each
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
    """Return the seconds of a token."""
    return sum(seconds for _, seconds in steps) / sum(tokens for tokens, _ in steps)


def line_through(steps: list[tuple[int, float]]) -> tuple[float, float]:
    """Return the seconds of a step of no tokens, and of a token, by least squares; all tokens' where all are equal."""
    tokens, seconds = zip(*steps, strict=True)
    slope = _rate(steps)
    if len(set(tokens)) > 1:
        slope = min(slope, linear_regression(tokens, seconds).slope)
    return (sum(seconds) - slope * sum(tokens)) / len(steps), slope


def add_probe(plan: dict[str, Any], found: Probe, share: float) -> None:
    """Add to the plan what the probe measured; what it held beyond the parts on a CPU is the allocator's."""
    is_cpu = plan["device"] == "cpu"
    shared = 1 if is_cpu else plan["processes"]  # processes on one CPU share its cores
    seconds = (plan["steps"] * found.step_seconds + plan["tokens"] * found.token_seconds) / shared
    plan["here"] = {
        "steps": found.steps,
        "tokens_per_second": plan["tokens"] / seconds,
        "train_seconds": seconds,
        "evaluation_seconds": found.evaluation_seconds * share * plan["evaluations"] / shared,
        "peak_memory": found.peak_memory,
    }
    if is_cpu:
        beyond = max(0, (found.peak_memory or 0) - plan["memory"]["ddp"]["total"])
        for parts in plan["memory"].values():
            parts["reserve"], parts["total"] = parts["reserve"] + beyond, parts["total"] + beyond
        plan["labels"]["memory.reserve"] = MEASURED


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
    """Show the plan as tables: every figure with how it is known."""
    labels, disk, here, memory = plan["labels"], plan["disk"], plan["here"], plan["memory"]
    rows = [(name, _number(plan[key]), labels.get(key, COMPUTED)) for key, name in FACTS.items() if key in plan]
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
    parts = [
        (name, size(memory["ddp"][key]), size(memory["fsdp2"][key]), labels[f"memory.{key}"])
        for key, name in PARTS.items()
    ]
    where = f"memory of one of {plan['processes']} process(es) on this {plan['device']}"
    console.table(where, ("part", "DDP", "FSDP2", "how it is known"), parts)
    gpus = [
        (
            gpu["name"],
            *(size(gpu[key]) for key in ("memory", "ddp", "fsdp2")),
            " and ".join({"ddp": "DDP", "fsdp2": "FSDP2"}[name] for name in gpu["fits"]) or "neither",
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
