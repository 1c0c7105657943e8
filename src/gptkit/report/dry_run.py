"""`--dry-run`: what a run will need, as far as anybody can know before it; nothing of it stays on the disk.

The JSON object:

    parameters, vocabulary, sequence_length, micro_batch, steps, tokens_per_step, tokens, epochs, flops, evaluations,
    device, precision, compile, processes, data_sha256; pretrain: train_tokens, validation_tokens; finetune: task,
    model, n_train, runs (seeds times variants: steps, tokens, flops and times are of all)
    idle       null, or the line on processes that would have no work on the device that is here
    memory     {"ddp": {weights, gradients, optimizer, activations, logits, gathered, evaluation, reserve, total},
               "fsdp2": ...}: bytes of one process on the device that is here; evaluation = what it takes beyond
               training's fullest moment, reserve = library and allocator
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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import nn

from gptkit.console import Console
from gptkit.model.lm_loss import CHUNK_ELEMENTS, SCORED_ELEMENTS
from gptkit.model.modeling_gpt import DENSE_LENGTH
from gptkit.report import planned_tables
from gptkit.training import planning, rules
from gptkit.training.checkpoints import model_tensors
from gptkit.training.devices import DEVICES, MEASURED_ON, MFU, RESERVE, Device
from gptkit.training.hardware import Hardware, known_peak
from gptkit.training.optimizers import build_optimizer
from gptkit.training.options import TrainingOptions
from gptkit.training.planning import STRATEGIES, Memory, Pass, Scoring, Shape
from gptkit.training.probing import Probe
from gptkit.training.rules import Choices

COMPUTED, MEASURED, ASSUMED = "computed", "measured", "assumed"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run to plan: what of it the two commands know each in their own way; `model` has shapes and no memory.

    `rows_per_step` are what --micro-batch counts; `rows_on` is how many sequences of `length` tokens a forward pass
    takes on a device, `micro_batches_on` how many passes a step is cut into; `library` the bytes that this process
    holds without the model, and `facts` what else to tell. `has_best` and `has_decay` say whether a checkpoint of the
    best step and one of the last step before a decay is kept too, `snapshots` counts those of all runs.
    """

    options: TrainingOptions
    model: nn.Module
    choices: Choices
    length: int
    rows_per_step: int
    rows_on: Callable[[Hardware], int]
    micro_batches_on: Callable[[Hardware], int]
    scoring: Scoring
    library: int
    steps: int
    tokens: float
    evaluations: int
    flops_per_token: float
    has_loss_head: bool
    has_best: bool
    has_decay: bool
    snapshots: int
    facts: dict[str, Any]
    labels: dict[str, str]


def tell(
    subject: Subject, probe: Callable[[], Probe], accelerator: Accelerator, hardware: Hardware, console: Console
) -> dict[str, Any]:
    """Return and show the plan; a probe of real steps runs where the device that is here has room for them."""
    plan = plan_of(subject, hardware)
    if plan["idle"]:
        console.warn(plan["idle"])
    needed = plan["memory"]["ddp"]["total"]
    room = psutil.virtual_memory().available if hardware.kind == "cpu" else hardware.memory or needed
    if needed > room:
        console.warn(f"no step is tried here: it would take about {needed / 1e9:.1f} GB, {room / 1e9:.1f} GB are free")
    else:
        console.say("trying up to 20 steps, for their time and memory")
        plan = with_probe(plan, subject, probe(), hardware)
    planned_tables.show(plan, console)
    console.say("the same command without --dry-run trains it")
    return plan


def plan_of(subject: Subject, hardware: Hardware) -> dict[str, Any]:
    """Return what arithmetic tells."""
    options, processes = subject.options, subject.options.num_processes or 1
    state = planning.state_on_meta(build_optimizer(subject.model.named_parameters(), options))
    here = pass_on(subject, hardware, subject.choices.precision)
    library = subject.library if hardware.kind == "cpu" else RESERVE
    checkpoint = planning.file_bytes(model_tensors(subject.model)) + planning.file_bytes(state)
    exported = planning.file_bytes(model_tensors(subject.model))
    kept = options.keep_checkpoints + subject.has_best + subject.has_decay
    most = planning.disk_bytes(checkpoint, exported, kept=kept, snapshots=subject.snapshots)
    return {
        **subject.facts,
        "micro_batch": here.rows,
        "flops": subject.tokens * subject.flops_per_token,
        "evaluations": subject.evaluations,
        "device": subject.choices.device,
        "precision": subject.choices.precision,
        "compile": subject.choices.compile,
        "processes": processes,
        "idle": rules.idle_note(subject.micro_batches_on(hardware), processes, rows=subject.rows_per_step),
        "memory": {
            strategy: with_total(_memory(subject, state, here, strategy, processes, library)) for strategy in STRATEGIES
        },
        "disk": {
            "checkpoint": checkpoint,
            "kept": kept,
            "model": exported,
            "snapshots": subject.snapshots,
            "most": most,
        },
        "here": None,
        "devices": [_on_device(subject, state, device, processes) for device in DEVICES],
        "labels": {
            **LABELS,
            "memory.activations": f"{COMPUTED} as if eager" if subject.choices.compile else COMPUTED,
            **(CPU_LABELS if hardware.kind == "cpu" else {}),
            **subject.labels,
        },
    }


LABELS = {
    **dict.fromkeys(("parameters", "flops", "evaluations", "steps", "tokens", "disk", "memory"), COMPUTED),
    **dict.fromkeys(("memory.weights", "memory.gradients", "memory.optimizer"), COMPUTED),
    "memory.logits": COMPUTED,
    "memory.gathered": COMPUTED,
    "memory.evaluation": COMPUTED,
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


def _memory(
    subject: Subject, state: Any, one: Pass, strategy: planning.Strategy, processes: int, library: int
) -> Memory:
    return planning.memory(
        subject.model,
        state,
        shape_of(subject.model),
        one,
        subject.scoring,
        strategy=strategy,
        processes=processes,
        library=library,
    )


def with_total(memory: Memory) -> dict[str, int]:
    return {**vars(memory), "total": memory.total}


def with_probe(plan: dict[str, Any], subject: Subject, probe: Probe, hardware: Hardware) -> dict[str, Any]:
    """Return the plan with what the probe measured; what it held beyond the parts on a CPU is the allocator's."""
    seconds = probe.train_seconds(subject.steps, subject.tokens)
    shared = 1 if hardware.kind == "cpu" else plan["processes"]  # processes on one CPU share its cores
    plan["here"] = {
        "steps": probe.steps,
        "tokens_per_second": subject.tokens / seconds * shared,
        "train_seconds": seconds / shared,
        "evaluation_seconds": probe.evaluation_seconds * subject.evaluations / shared,
        "peak_memory": probe.peak_memory,
    }
    if hardware.kind == "cpu":
        beyond = max(0, (probe.peak_memory or 0) - plan["memory"]["ddp"]["total"])
        for one in plan["memory"].values():
            one["reserve"], one["total"] = one["reserve"] + beyond, one["total"] + beyond
        plan["labels"]["memory.reserve"] = MEASURED
    return plan


def _on_device(subject: Subject, state: Any, device: Device, processes: int) -> dict[str, Any]:
    """Return a GPU's row: always bf16, compiled where the run would be or chooses by itself."""
    hardware = device.hardware()
    compiles = subject.options.compile != "off"
    mfu, peak = MFU["compiled" if compiles else "eager"], known_peak(hardware, "bf16")
    assert peak is not None
    one = pass_on(subject, hardware, "bf16")
    totals: dict[str, int] = {
        strategy: _memory(subject, state, one, strategy, processes, RESERVE).total for strategy in STRATEGIES
    }
    micro_batches = subject.micro_batches_on(hardware)
    occupied = planning.occupancy(micro_batches, processes)
    flops = subject.tokens * subject.flops_per_token
    seconds = planning.train_seconds(flops, peak=peak, mfu=mfu, processes=processes, occupied=occupied)
    return {
        "name": device.name,
        "memory": device.memory,
        "peak_flops": peak,
        "mfu": mfu,
        "micro_batch": one.rows,
        "idle": max(0, processes - micro_batches),
        "ddp": totals["ddp"],
        "fsdp2": totals["fsdp2"],
        "fits": [strategy for strategy, total in totals.items() if total <= device.memory],
        "tokens_per_second": subject.tokens / seconds,
        "train_seconds": seconds,
    }


def pass_on(subject: Subject, hardware: Hardware, precision: str) -> Pass:
    """Return the run's forward pass on a device."""
    return Pass(
        rows=subject.rows_on(hardware),
        length=subject.length,
        precision=precision,
        device=hardware.kind,
        dense_length=DENSE_LENGTH,
        chunk_elements=CHUNK_ELEMENTS.get(hardware.kind, CHUNK_ELEMENTS["cpu"]),
        scored_elements=SCORED_ELEMENTS.get(hardware.kind, SCORED_ELEMENTS["cpu"]),
        checkpointing=subject.options.gradient_checkpointing,
        has_loss_head=subject.has_loss_head,
    )


def shape_of(model: nn.Module) -> Shape:
    """Return the sizes of one of our models."""
    config: Any = model.config
    return Shape(
        n_layer=config.n_layer,
        n_embd=config.n_embd,
        n_inner=config.n_inner or 4 * config.n_embd,
        n_head=config.n_head,
        vocabulary=config.vocab_size,
        pre_norm=config.pre_norm,
        embedding_dropout=config.embd_pdrop,
        attention_dropout=config.attn_pdrop,
        residual_dropout=config.resid_pdrop,
    )


def chosen_rows(options: TrainingOptions, model: nn.Module, hardware: Hardware, *, rows: int, length: int) -> int:
    """Return the sequences of a forward pass: as asked, or as the rules choose by device, model and processes."""
    config: Any = model.config
    return options.micro_batch or rules.choose_micro_batch(
        hardware,
        rows=rules.micro_batch_rows(rows, options.num_processes or 1),
        sequence_length=length,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        n_layer=config.n_layer,
        n_embd=config.n_embd,
    )


def fresh_on(model: nn.Module, device: torch.device) -> Any:
    """Return a model like this one with weights, in training mode and with its checkpointing."""
    made = type(model)(model.config)
    made.train()
    return made.to(device)
