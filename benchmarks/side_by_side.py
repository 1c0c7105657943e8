"""Training steps of peers and of ours in one run: a row is a process that stands ready; a round asks all in turn.

A machine whose speed drifts so drifts for all, and a claim is the median of the rounds' ratios; --json keeps every
figure. A turn is a few steps and counts their mean. Where a part says what a step computes, the rows are also held
against the matrix peak of their precision, measured in every round: torch's product of square matrices, the better of
two sizes (on a GPU the data sheet's figure). What a step computes is counted as for the MFU that a run reports, in
`gptkit.training.rules.flops_per_token`: 6 FLOPs a token and parameter, the head once and position embeddings never,
and half of causal attention's square.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from turns import Answer, Worker, serve

Step = Callable[[], object]
Figures = dict[str, list[float]]  # by row, one a round

GPTKIT, BEST, PEAK = "gptkit", "best peer", "matrix peak, "
PEAK_SIZES, PEAK_SECONDS = (2048, 4096), 0.7


@dataclass(frozen=True)
class Row:
    """A row of the table; `prepare` returns the function that takes one step."""

    prepare: Callable[[], Step]
    compiles: bool = False


@dataclass(frozen=True)
class Part:
    """Rows that do the same work, `work` units a step, and what is asked of ours.

    `asked` is a multiple of a peer's speed, or of that of the fastest one, BEST; `asked_share` a share of the matrix
    peak, where `flops` says what a unit of work costs.
    """

    rows: Mapping[str, Row]
    unit: str
    work: int
    steps: int
    flops: float | None = None
    asked: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    asked_share: Mapping[str, float] = field(default_factory=dict)


def compare(description: str, script: str, parts: Mapping[str, Part], *, rounds: int) -> None:
    """Measure the parts and print their tables; `script` is the file that calls this, which is run for every row."""
    if sys.argv[1:2] == ["--row"]:
        serve(lambda: answer_of(parts[sys.argv[2]], sys.argv[3]))
        return
    options = _options(description, parts, rounds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # those that stand still must not be left behind
    print(machine("torch", "transformers"), flush=True)
    figures: dict[str, Figures] = {}
    for name in options.part or parts:
        rows = without_emulated([row for row in parts[name].rows if not options.only or row in options.only])
        if not rows:
            continue
        figures[name] = _measure(script, name, parts[name], rows, options)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine("torch", "transformers"), "figures": figures}))


def _options(description: str, parts: Mapping[str, Part], rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="steps of a turn [default: depends on the part]")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--part", action="append", choices=list(parts))
    rows = dict.fromkeys(row for part in parts.values() for row in part.rows)
    parser.add_argument("--only", action="append", choices=list(rows))
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    return parser.parse_args()


def _measure(script: str, name: str, part: Part, rows: Sequence[str], options: argparse.Namespace) -> Figures:
    """Print a part's table; return the rates of every round, those of the peaks in FLOP/s."""
    peaks = [PEAK + precision for precision in dict.fromkeys(map(precision_of, rows))] if part.flops else []
    rates: Figures = {each: [] for each in (*peaks, *rows)}
    steps = options.steps or part.steps
    with contextlib.ExitStack() as stack:
        commands = {each: [sys.executable, script, "--row", name, each] for each in rates}
        workers = {each: stack.enter_context(Worker(command, os.environ)) for each, command in commands.items()}
        compile_seconds = {row: workers[row].ask(steps=0) for row in rows}
        for _ in range(options.rounds):
            for each, worker in workers.items():
                found = worker.ask(steps=steps)
                rates[each].append(found if each in peaks else part.work / found)
    print(f"\nPart {name}: {options.rounds} rounds of {steps} steps, {part.work:,} {part.unit} each\n")
    print_speed(part, rates, compile_seconds)
    return rates


def answer_of(part: Part, name: str) -> Answer:
    """Return a function that gives the mean seconds of so many steps, for 0 those of compiling; or a matrix peak."""
    if name.startswith(PEAK):
        return lambda *, steps: matrix_peak(name.removeprefix(PEAK))
    step = part.rows[name].prepare()
    first = _timed(step)  # compiles
    settled = _timed(step)
    free_gpu_memory()

    def seconds(*, steps: int) -> float:
        if steps == 0:
            return first - settled if part.rows[name].compiles else 0.0
        if free_gpu_memory():
            step()  # takes its memory again
        mean = statistics.mean(_timed(step) for _ in range(steps))
        free_gpu_memory()
        return mean

    return seconds


def free_gpu_memory() -> bool:
    """Leave the memory of a step to the other rows, whose processes share the GPU; return whether there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return torch.cuda.is_available()


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def matrix_peak(precision: str) -> float:
    """Return the FLOP/s of a GPU's data sheet; on a CPU, those of the better of two square products of torch."""
    import torch

    from gptkit.training.rules import hardware_of, known_peak, measured_peak

    if torch.cuda.is_available():
        return known_peak(hardware_of(torch.device("cuda")), precision) or float("nan")
    measured_peak.cache_clear()
    return max(measured_peak(precision, size=size, seconds=PEAK_SECONDS) for size in PEAK_SIZES)


def precision_of(row: str) -> str:
    return "bf16" if "bf16" in row else "fp32"


def auto_precision() -> str:
    """Return what gptkit's --precision auto is here."""
    import torch

    from gptkit.training.rules import choose_precision, hardware_of

    return choose_precision("auto", hardware_of(torch.device("cuda" if torch.cuda.is_available() else "cpu")))


def without_emulated(names: Sequence[str], *, native: Sequence[str] = ()) -> list[str]:
    """Return the rows without those for which torch would emulate bf16 for hours; `native` ones do without torch."""
    import torch

    from gptkit.system.processor import cpu_has_bf16

    if torch.cuda.is_available() or cpu_has_bf16():
        return list(names)
    left_out = [name for name in names if "bf16" in name and name not in native]
    print(f"left out, as this CPU has no bf16: {', '.join(left_out) or 'nothing'}")
    return [name for name in names if name not in left_out]


def gptkit_steps(
    model: Any, batches: Any, loss_function: Any, options: Any, precision: str, device: str = "cpu"
) -> Step:
    """Return gptkit's own step, at the full learning rate: its loop, its optimizer."""
    from gptkit.training.job import MicroBatching, Plan, TrainingJob
    from gptkit.training.loop import train
    from gptkit.training.optimizers import build_optimizer
    from gptkit.training.processes import make_accelerator

    job = TrainingJob(
        model=model,
        loss_function=loss_function,
        micro_batching=MicroBatching(batches_of=lambda rows: batches),
        optimizer=build_optimizer(model.named_parameters(), options, precision=precision),
        schedule=lambda step: 1.0,
        plan=Plan(steps=10**6, log_every=1, precision=precision),
    )
    events = train(job, make_accelerator(device))
    return lambda: next(events)


def machine(*packages: str) -> str:
    """Return the processor with the instructions that torch uses, or the GPU, and the versions."""
    import torch

    from gptkit.training.rules import hardware_of

    on_gpu = torch.cuda.is_available()
    name = hardware_of(torch.device("cuda" if on_gpu else "cpu")).name
    processor = (
        name if on_gpu else f"{name}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    )
    return f"{processor}, Python {platform.python_version()}, {', '.join(f'{one} {version(one)}' for one in packages)}"


def print_speed(part: Part, rates: Figures, compile_seconds: Mapping[str, float]) -> None:
    rows = [name for name in rates if not name.startswith(PEAK)]
    heads, columns = ratio_columns({name: rates[name] for name in rows}, part.asked)
    table = [[name, spread(rates[name]), *columns[name]] for name in rows]
    if part.flops:
        heads.append("share of the matrix peak")
        for line, name in zip(table, rows, strict=True):
            line.append(
                share_of_peak(rates[name], rates[PEAK + precision_of(name)], part.flops, part.asked_share.get(name))
            )
    if any(compile_seconds.values()):
        heads.append("compile s")
        for line, name in zip(table, rows, strict=True):
            line.append(f"{compile_seconds[name]:.0f}" if part.rows[name].compiles else "")
    print_table(["who", f"{part.unit}/s: median (lowest to highest)", *heads], table)


def ratio_columns(
    rates: Mapping[str, list[float]], asked: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the heads and each row's cells of its ratios to every peer, and to the one with the best median."""
    peers = [name for name in rates if not name.startswith(GPTKIT)]
    columns = {name: name for name in peers}
    if len(peers) > 1:
        columns[BEST] = max(peers, key=lambda name: statistics.median(rates[name]))
    heads = [f"x {name}" if name != BEST else f"x {BEST} ({peer})" for name, peer in columns.items()]
    cells = {
        name: [ratio(own, rates[peer], asked.get(name, {}).get(column)) for column, peer in columns.items()]
        for name, own in rates.items()
    }
    return heads, cells


def ratio(ours: Sequence[float], theirs: Sequence[float], asked: float | None = None) -> str:
    """Return the median of the rounds' ratios with their spread, and what was asked, bold where it is reached."""
    found = [our / their for our, their in zip(ours, theirs, strict=True)]
    if asked is None:
        return f"{statistics.median(found):.2f}"
    return f"{reached(statistics.median(found), asked, '.2f')} ({min(found):.2f} to {max(found):.2f}; asked {asked})"


def share_of_peak(rates: Sequence[float], peaks: Sequence[float], flops: float, asked: float | None) -> str:
    shares = [rate * flops / peak for rate, peak in zip(rates, peaks, strict=True)]
    of = f"of {statistics.median(peaks) / 1e9:,.0f} GFLOP/s"
    if asked is None:
        return f"{statistics.median(shares):.0%} {of}"
    found = reached(statistics.median(shares), asked, ".0%")
    return f"{found} {of} ({min(shares):.0%} to {max(shares):.0%}; asked {asked:.0%})"


def reached(found: float, asked: float, form: str) -> str:
    return f"**{found:{form}}**" if found >= asked else f"{found:{form}}"


def spread(figures: Sequence[float]) -> str:
    """Return the median, and in brackets the lowest and the highest."""
    return f"{_shown(statistics.median(figures))} ({_shown(min(figures))} to {_shown(max(figures))})"


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(row)} |", flush=True)
