"""Generation beside HF's generate and CTranslate2, in one run: GPT-2 124M's shape, random weights, top-k 40, 2 threads.

    python benchmarks/generate.py [--part 1 --part 8 --part 64 --part cold] [--rounds 3] [--only NAME ...] [--tokens N]

Parts 1, 8 and 64 are batches: 256 new tokens a row from the end-of-text token, each peer and each format of ours a
process of its own, asked in turn; batch 64 takes one round. A format's limit is the bytes of weights that one token
reads, over the speed of reading memory one way with as many threads, measured in each round; what batch 1 reaches of
it is in the last column (keys and values are read too, which the limit leaves out). A cache of the size of the weights
can lift the speed above the limit.

Part cold starts `gptkit generate --json` again and again, the model's files in the system's page cache, and splits its
seconds by what it says itself; GPTKIT_CACHE is a new directory where the cache is empty.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from generation_peers import CTRANSLATE2, GPTKIT, PREPARE, THREADS, TOP_K
from side_by_side import spread, without_emulated
from turns import Worker

TOKENS, BATCHES, ONE_ROUND_FROM = 256, (1, 8, 64), 64
LAYERS, WIDTH, VOCABULARY = 12, 768, 50257
WEIGHTS_READ = LAYERS * 12 * WIDTH**2 + VOCABULARY * WIDTH  # by one token; biases and norms are a thousandth of it
BYTES_A_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5 + 2 / 32}  # int4: a bf16 scale to 32 weights
ROWS = [name for name in PREPARE if name.rpartition(" ")[2] in BYTES_A_WEIGHT]
PEERS = [name for name in ROWS if not name.startswith(GPTKIT)]
ASKED_OF_ONE = {  # times the peer's tokens/s at batch 1
    "gptkit fp32": {"HF fp32": 7, "CTranslate2 fp32": 2},
    "gptkit bf16": {"HF bf16": 10},
    "gptkit int8": {"HF fp32": 20, "CTranslate2 int8": 2},
    "gptkit int4": {"HF fp32": 27},
}
ASKED_OF_MANY = {name: {"CTranslate2 int8": 1} for name in ROWS if name.startswith(GPTKIT)}


class Job(NamedTuple):
    """A command that starts from nothing; `tokens` 0 is one that only gets as far as its imports."""

    name: str
    cache: str
    tokens: int
    arguments: tuple[str, ...]


GENERATE = ("-m", "gptkit", "generate", "Hello, my name is", "--top-k", str(TOP_K), "--ignore-eos", "--json")
JOBS = (
    Job("Python alone", "", 0, ("-c", "pass")),
    Job("Python and the command's imports", "", 0, ("-c", "import gptkit.generate.command")),
    *(
        Job(f"{tokens} new tokens, --compile {mode}", cache, tokens, (*GENERATE, "--compile", mode))
        for tokens, mode, cache in (
            (1, "auto", "empty"),
            (1, "auto", "warm"),
            (40, "auto", "empty"),
            (40, "auto", "warm"),
            (40, "off", "warm"),
            (TOKENS, "on", "empty"),
            (TOKENS, "on", "warm"),
            (TOKENS, "off", "warm"),
        )
    ),
)
SPLIT = ("compile_seconds", "prefill_seconds", "decode_seconds")


def main() -> None:
    options = parsed_options()
    os.environ["OMP_NUM_THREADS"] = str(THREADS)  # of every process that starts here
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # those that stand still must not be left behind
    with contextlib.ExitStack() as stack:
        directory = options.models or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (directory / CTRANSLATE2).exists():  # written last
            subprocess.run(child(directory, "models"), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        print(machine())
        parts = options.part or [*map(str, BATCHES), "cold"]
        names = [name for name in ROWS if not options.only or name in options.only]
        names = without_emulated(names, native=[name for name in names if name.startswith(GPTKIT)])
        if batches := [batch for batch in BATCHES if str(batch) in parts]:
            measure_speed(directory, names, batches, options.tokens, options.rounds)
        if "cold" in parts:
            measure_cold_starts(directory, options.rounds)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="new tokens a row in parts 1, 8 and 64")
    parser.add_argument("--part", action="append", choices=[*map(str, BATCHES), "cold"])
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--models", type=Path, help="keep the random models here, for the next time [default: do not]")
    return parser.parse_args()


def child(directory: Path, name: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("generation_peers.py")), str(directory), name]


def machine() -> str:
    packages = (f"{name} {version(name)}" for name in ("torch", "transformers", "ctranslate2"))
    python = f"Python {platform.python_version()}"
    return f"{platform.processor() or platform.machine()}, {THREADS} threads, {python}, {', '.join(packages)}"


def measure_speed(directory: Path, names: Sequence[str], batches: Sequence[int], tokens: int, rounds: int) -> None:
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(child(directory, name), os.environ)) for name in ("memory", *names)}
        memory = workers.pop("memory")
        for batch in batches:
            for worker in workers.values():
                worker.ask(batch=batch, tokens=8)  # the first one warms up
            bandwidths: list[float] = []
            rates: dict[str, list[float]] = {name: [] for name in workers}
            for _ in range(1 if batch >= ONE_ROUND_FROM else rounds):
                bandwidths.append(memory.ask())
                for name, worker in workers.items():
                    rates[name].append(batch * tokens / worker.ask(batch=batch, tokens=tokens))
            print_speed(batch, rates, bandwidths)


def print_speed(batch: int, rates: dict[str, list[float]], bandwidths: list[float]) -> None:
    asked = ASKED_OF_ONE if batch == 1 else ASKED_OF_MANY
    peers = [name for name in PEERS if name in rates]
    print(f"\nBatch {batch}; memory is read at {spread([one / 1e9 for one in bandwidths])} GB/s\n")
    heads = ["who", "tokens/s: median (lowest to highest)", *(f"x {peer}" for peer in peers)]
    rows = [
        [name, spread(ours), *(ratio(ours, rates[peer], asked.get(name, {}).get(peer)) for peer in peers)]
        for name, ours in rates.items()
    ]
    if batch == 1:
        heads.append("share of the memory limit")
        for row, (name, ours) in zip(rows, rates.items(), strict=True):
            row.append(share_of_limit(name, ours, bandwidths))
    print_table(heads, rows)


def ratio(ours: Sequence[float], theirs: Sequence[float], asked: float | None) -> str:
    """Return the median of the rounds' ratios, bold where it is at least what was asked."""
    found = statistics.median(our / their for our, their in zip(ours, theirs, strict=True))
    if asked is None:
        return f"{found:.2f}"
    return f"{f'**{found:.2f}**' if found >= asked else f'{found:.2f}'} (asked {asked})"


def share_of_limit(name: str, rates: Sequence[float], bandwidths: Sequence[float]) -> str:
    bytes_a_token = WEIGHTS_READ * BYTES_A_WEIGHT[name.rpartition(" ")[2]]
    shares = [rate * bytes_a_token / bandwidth for rate, bandwidth in zip(rates, bandwidths, strict=True)]
    limit = statistics.median(bandwidths) / bytes_a_token
    return f"{statistics.median(shares):.0%} of {limit:.0f}"


def measure_cold_starts(directory: Path, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as warm:
        for job in JOBS:
            cold_start(job, directory, warm)  # fills the cache, and the system's of files
        seconds: dict[Job, list[dict[str, float]]] = {job: [] for job in JOBS}
        for _ in range(rounds):
            for job in JOBS:
                with cache_of(job, warm) as cache:
                    seconds[job].append(cold_start(job, directory, cache))
    print_cold_starts(seconds)


@contextlib.contextmanager
def cache_of(job: Job, warm: str) -> Iterator[str]:
    if job.cache != "empty":
        yield warm
        return
    with tempfile.TemporaryDirectory() as empty:
        yield empty


def cold_start(job: Job, directory: Path, cache: str) -> dict[str, float]:
    """Return the seconds of the whole process, `wall`, and those that it names itself; `rest` is the others."""
    arguments = ("--model", str(directory / GPTKIT), "--max-new-tokens", str(job.tokens)) if job.tokens else ()
    command = [sys.executable, *job.arguments, *arguments]
    began = time.perf_counter()
    environment = os.environ | {"GPTKIT_CACHE": cache}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    if not job.tokens:
        return {"wall": wall}
    said = json.loads(done.stdout)
    if said["samples"][0]["num_tokens"] != job.tokens:
        raise RuntimeError(f"{job.name}: {said['samples'][0]['num_tokens']} tokens came")
    split = {part: float(said[part]) for part in SPLIT}
    return {"wall": wall, **split, "rest": wall - sum(split.values())}


def print_cold_starts(seconds: dict[Job, list[dict[str, float]]]) -> None:
    print("\nFrom a cold process; asked: the first token in under 2.5 s, 40 tokens no later with auto than with off\n")
    parts = (*SPLIT, "rest")
    rows = [
        [job.name, job.cache, spread([one["wall"] for one in runs]), *(middle(runs, part) for part in parts)]
        for job, runs in seconds.items()
    ]
    columns = (f"{part.removesuffix('_seconds')} s" for part in parts)
    print_table(["command", "cache", "s: median (lowest to highest)", *columns], rows)


def middle(runs: Sequence[dict[str, float]], part: str) -> str:
    return f"{statistics.median(one[part] for one in runs):.2f}" if part in runs[0] else ""


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
