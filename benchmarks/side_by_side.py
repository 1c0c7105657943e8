"""Peers and ours in one run: each row is a process of its own, and a round runs every row once, in turn.

A machine whose speed drifts so drifts for all. What a row costs is the median of its steps; the first call warms up
(and compiles: its seconds less a later one's are the compile time), the second settles.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Step = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """A row of the table; `prepare` returns the function that takes one step."""

    name: str
    prepare: Callable[[], Step]
    compiles: bool = False


def compare(
    description: str,
    script: str,
    rows: Sequence[Row],
    *,
    peers: Sequence[str],
    unit: str,
    work: int,
    steps: int,
    rounds: int,
) -> None:
    """Measure the rows and print the table; `work` in units a step, `peers` name rows by how they begin."""
    by_name = {row.name: row for row in rows}
    options = _options(description, list(by_name), steps, rounds)
    if options.row:
        print(json.dumps(_measure(by_name[options.row], options.steps)))
        return
    names = without_emulated(options.only or list(by_name))
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            command = [sys.executable, script, "--row", name, "--steps", str(options.steps)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    _print_table(results, peers, unit, work)


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


def _options(description: str, names: list[str], steps: int, rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=steps, help="timed steps of a row in a round")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--only", action="append", choices=names)
    parser.add_argument("--row", choices=names, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(row: Row, steps: int) -> dict[str, float]:
    """Return the median seconds of a step and the seconds of compiling."""
    step = row.prepare()
    first = _timed(step)
    _timed(step)
    median = statistics.median(_timed(step) for _ in range(steps))
    return {"seconds": median, "compile_seconds": max(0.0, first - median) if row.compiles else 0.0}


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _print_table(results: dict[str, list[dict[str, float]]], peers: Sequence[str], unit: str, work: int) -> None:
    import torch
    import transformers

    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    print(f"{gpu}{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, Python", end=" ")
    print(f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"| who | {unit}: median (lowest to highest) | {' | '.join(f'x {peer}' for peer in peers)} | compile s |")
    print("|---|---" + "|---" * len(peers) + "|---|")
    for name, rounds in results.items():
        rates = [work / one["seconds"] for one in rounds]
        compile_seconds = ", ".join(f"{one['compile_seconds']:.0f}" for one in rounds)
        ratios = [_ratio(results, name, peer) for peer in peers]
        print(f"| {name} | {spread(rates)} | {' | '.join(ratios)} | {compile_seconds} |")


def spread(figures: Sequence[float]) -> str:
    """Return the median, and in brackets the lowest and the highest."""
    return f"{_shown(statistics.median(figures))} ({_shown(min(figures))} to {_shown(max(figures))})"


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _ratio(results: dict[str, list[dict[str, float]]], name: str, peer: str) -> str:
    """Return the median over rounds of the peer's seconds over this row's."""
    theirs = next((rounds for other, rounds in results.items() if other.startswith(peer)), [])
    ratios = [one["seconds"] / ours["seconds"] for one, ours in zip(theirs, results[name], strict=False)]
    return f"{statistics.median(ratios):.2f}" if ratios else "n/a"
