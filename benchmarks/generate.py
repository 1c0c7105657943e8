"""Generation beside llama.cpp, CTranslate2 and HF in one run: GPT-2 124M's shape, random weights, two threads.

    python benchmarks/generate.py [--part NAME ...] [--rounds 3] [--only NAME ...] [--tokens N] [--json FILE]

Each peer and each format of ours is a process of its own; a round asks all of them in turn, and the claim is the
median of the rounds' ratios; --json keeps every figure. Texts are sampled with top-k 40. Parts 1, 8 and 64 are batches
that start from the end-of-text token (64 takes one round); part prompt reads 512 tokens for one new one; part long
takes the time per token after 96 and after 928 tokens; parts busy-1 and busy-2 are batch 1 beside one and two processes
that never rest. A format's limit is the bytes of weights that one token reads, over the speed of reading memory one way
with as many threads, measured in each round; what batch 1 reaches of it is in the last column (keys and values are read
too, which the limit leaves out). A cache of the size of the weights can lift the speed above the limit.

Part cold starts `gptkit generate --json` again and again, the model's files in the system's page cache, and splits its
seconds by what it says itself; GPTKIT_CACHE is a new directory where the cache is empty.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from generation_peers import CTRANSLATE2, GPTKIT, PREPARE, THREADS, TOP_K
from side_by_side import spread, without_emulated
from turns import Worker

TOKENS = 256


class Part(NamedTuple):
    """What is asked of every row in turn: new tokens for prompts of a length, beside `busy` other processes."""

    batch: int = 1
    prompt: int = 1
    tokens: int = TOKENS
    busy: int = 0
    rounds: int | None = None  # None: those of --rounds


PARTS = {
    "1": Part(),
    "8": Part(batch=8),
    "64": Part(batch=64, rounds=1),
    "prompt": Part(prompt=512, tokens=1),
    "busy-1": Part(busy=1, tokens=64),
    "busy-2": Part(busy=2, tokens=64),
}
COLD = "cold"
LONG, NEAR, FAR, FURTHER = "long", 96, 928, 64  # time per token from NEAR and from FAR on, over FURTHER tokens
LAYERS, WIDTH, VOCABULARY = 12, 768, 50257
WEIGHTS_READ = LAYERS * 12 * WIDTH**2 + VOCABULARY * WIDTH  # by one token; biases and norms are a thousandth of it
BYTES_A_WEIGHT = {
    "fp32": 4.0,
    "f32": 4.0,
    "q8_0": 1 + 2 / 32,
    "q4_0": 0.5 + 2 / 32,
    "bf16": 2.0,
    "int8": 1.0,
    "int4": 0.5 + 2 / 32,
}  # int4: a bf16 scale to 32 weights
ROWS = [name for name in PREPARE if name.rpartition(" ")[2] in BYTES_A_WEIGHT]
PEERS = [name for name in ROWS if not name.startswith(GPTKIT)]
ASKED = {  # by part: times the peer's tokens/s
    "1": {"gptkit int8": {"llama.cpp q8_0": 1.2}, "gptkit int4": {"llama.cpp q4_0": 1.2}},
    "8": dict.fromkeys(("gptkit int8", "gptkit int4"), dict.fromkeys(PEERS, 1.0)),
    "64": dict.fromkeys(("gptkit int8", "gptkit int4"), dict.fromkeys(PEERS, 1.0)),
    "prompt": dict.fromkeys(("gptkit int8", "gptkit int4"), dict.fromkeys(PEERS, 1.0)),
}
ASKED_OF_LIMIT = {"fp32": 0.9, "bf16": 0.9, "int8": 0.75, "int4": 0.6}  # batch 1


Rates = dict[str, list[float]]


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
        parts = options.part or [*PARTS, LONG, COLD]
        names = [name for name in ROWS if not options.only or name in options.only]
        names = without_emulated(names, native=[name for name in names if name.startswith(GPTKIT)])
        figures = measure_speed(directory, names, parts, options)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine(), "tokens_per_second": figures}, indent=1))
        if COLD in parts:
            measure_cold_starts(directory, options.rounds)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="new tokens a row in parts 1, 8 and 64")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--part", action="append", choices=[*PARTS, LONG, COLD])
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--models", type=Path, help="keep the random models here, for the next time [default: do not]")
    return parser.parse_args()


def child(directory: Path, name: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("generation_peers.py")), str(directory), name]


def machine() -> str:
    packages = (f"{name} {version(name)}" for name in ("torch", "transformers", "ctranslate2", "xllamacpp"))
    is_linux = sys.platform == "linux"
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if is_linux else None
    python = f"Python {platform.python_version()}"
    return f"{model[1] if model else platform.machine()}, {THREADS} threads, {python}, {', '.join(packages)}"


def measure_speed(
    directory: Path, names: Sequence[str], parts: Sequence[str], options: argparse.Namespace
) -> dict[str, Rates]:
    """Print the table of each part; return the rates of every round by part and row, those of memory in bytes/s."""
    figures: dict[str, Rates] = {}
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(child(directory, name), os.environ)) for name in ("memory", *names)}
        memory = workers.pop("memory")
        for name in [name for name in PARTS if name in parts]:
            part = PARTS[name]
            if part.tokens == TOKENS:
                part = part._replace(tokens=options.tokens)
            with busy_processes(part.busy):
                figures[name] = measure_part(part, workers, memory, part.rounds or options.rounds)
            print_speed(name, figures, part)
        if LONG in parts:
            figures[LONG] = measure_long(workers, options.rounds)
    return figures


def measure_part(part: Part, workers: Mapping[str, Worker], memory: Worker, rounds: int) -> Rates:
    """Return the tokens/s of each round and row; those of the prompt where only one new token follows it."""
    asked = {"batch": part.batch, "prompt": part.prompt, "tokens": part.tokens}
    for worker in workers.values():
        worker.ask(**asked | {"tokens": min(8, part.tokens)})  # the first one warms up
    rates: Rates = {name: [] for name in ("memory", *workers)}
    for _ in range(rounds):
        rates["memory"].append(memory.ask())
        for name, worker in workers.items():
            rates[name].append(part.batch * max(part.prompt, part.tokens) / worker.ask(**asked))
    return rates


def measure_long(workers: Mapping[str, Worker], rounds: int) -> Rates:
    """Print the time per token after few and after many tokens; return the ratios of each round."""
    ratios: Rates = {name: [] for name in workers}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            near, far = (
                worker.ask(batch=1, prompt=prompt, tokens=1 + FURTHER) - worker.ask(batch=1, prompt=prompt, tokens=1)
                for prompt in (NEAR, FAR)
            )
            seconds[name].append((near, far))
            ratios[name].append(far / near)
    print(f"\nTime per token after {FAR} tokens over that after {NEAR}; asked of gptkit: at most 1.3\n")
    rows = [
        [
            name,
            *(f"{1000 * statistics.median(column) / FURTHER:.2f}" for column in zip(*each, strict=True)),
            spread(ratios[name]),
        ]
        for name, each in seconds.items()
    ]
    print_table(["who", f"ms, after {NEAR}", f"ms, after {FAR}", "ratio: median (lowest to highest)"], rows)
    return ratios


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def print_speed(part: str, figures: Mapping[str, Rates], asked_of_all: Part) -> None:
    rates = dict(figures[part])
    bandwidths = rates.pop("memory")
    peers = [name for name in PEERS if name in rates]
    print(f"\nPart {part}: {asked_of_all}; memory is read at {spread([one / 1e9 for one in bandwidths])} GB/s\n")
    heads = ["who", "tokens/s: median (lowest to highest)", *(f"x {peer}" for peer in peers)]
    rows = [
        [name, spread(ours)] + [ratio(ours, rates[peer], ASKED.get(part, {}).get(name, {}).get(peer)) for peer in peers]
        for name, ours in rates.items()
    ]
    if part == "1":
        heads.append("share of the memory limit")
        for row, (name, ours) in zip(rows, rates.items(), strict=True):
            row.append(share_of_limit(name, ours, bandwidths))
    if asked_of_all.busy and "1" in figures:
        heads.append("share of the quiet speed; asked: that of llama.cpp")
        for row, (name, ours) in zip(rows, rates.items(), strict=True):
            row.append(f"{statistics.median(ours) / statistics.median(figures['1'][name]):.0%}")
    print_table(heads, rows)


def ratio(ours: Sequence[float], theirs: Sequence[float], asked: float | None) -> str:
    """Return the median of the rounds' ratios, bold where it is at least what was asked."""
    found = statistics.median(our / their for our, their in zip(ours, theirs, strict=True))
    if asked is None:
        return f"{found:.2f}"
    return f"{f'**{found:.2f}**' if found >= asked else f'{found:.2f}'} (asked {asked})"


def share_of_limit(name: str, rates: Sequence[float], bandwidths: Sequence[float]) -> str:
    bits = name.rpartition(" ")[2]
    bytes_a_token = WEIGHTS_READ * BYTES_A_WEIGHT[bits]
    shares = [rate * bytes_a_token / bandwidth for rate, bandwidth in zip(rates, bandwidths, strict=True)]
    asked = f" (asked {ASKED_OF_LIMIT[bits]:.0%})" if name.startswith(GPTKIT) else ""
    return f"{statistics.median(shares):.0%} of {statistics.median(bandwidths) / bytes_a_token:.0f}{asked}"


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
    print("\nFrom a cold process; asked: a warm first token in 1.2 s, 40 tokens no later with auto than with off\n")
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
