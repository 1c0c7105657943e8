"""Eight speeds of two source trees, measured in turn through the command line: before, after, before, after, ...

    GPTKIT_TEST_DATA=... python benchmarks/paired.py BEFORE_SRC AFTER_SRC [--rounds 4] [--only NAME ...]

A source tree is a checkout's src/. Every measurement is a new process; before writes the models, once, and both read
them. Decoding and LAMBADA take GPT-2 124M's shape with random weights and GPT-2's tokenizer; training and resuming the
`laptop` preset. A machine whose speed drifts so drifts for both: what counts is the ratio of the two neighbours in a
round, above 1 where after is faster. The spread of before against before is the noise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from side_by_side import spread

LM_EXAMPLES, STEPS, PASSAGES = 480, 30, 160
REQUESTS = re.compile(r"([\d.,]+) requests/s")


class Done(NamedTuple):
    """A finished command: the seconds of its process, its JSON, and its stderr."""

    seconds: float
    result: dict[str, Any]
    said: str

    @property
    def tokens_per_second(self) -> float:
        return float(self.result["tokens_per_second"])

    @property
    def requests_per_second(self) -> float:
        return float(REQUESTS.findall(self.said)[-1].replace(",", ""))


class Speed(NamedTuple):
    """What is measured: a command line, and the speed that is read from it, per second."""

    name: str
    unit: str
    line: str
    read: Callable[[Done], float]
    repeats: int = 1  # in a round


GENERATE = "generate 'Hello, my name is' --model gpt2 --top-k 40 --ignore-eos --json"
PRETRAIN = f"pretrain --steps {STEPS} --eval-every {STEPS} --out new --json"
FINETUNE = "finetune --task rte --data RTE --model run --epochs 1 --out new --json"
EVAL = "eval --model gpt2 --task lambada/last-word --data lambada.jsonl --json"
SPEEDS = (
    Speed("help", "runs/s", "--help", lambda done: 1 / done.seconds, repeats=3),
    Speed("first token", "runs/s", f"{GENERATE} --max-new-tokens 1", lambda done: 1 / done.seconds, repeats=2),
    Speed("decoding fp32", "tokens/s", f"{GENERATE} --max-new-tokens 64", lambda done: done.tokens_per_second),
    Speed(
        "decoding int4",
        "tokens/s",
        f"{GENERATE} --max-new-tokens 128 --quantize int4",
        lambda done: done.tokens_per_second,
    ),
    Speed("pretrain step", "tokens/s", PRETRAIN, lambda done: done.tokens_per_second),
    Speed("finetune step", "tokens/s", FINETUNE, lambda done: done.tokens_per_second),
    Speed("LAMBADA", "passages/s", EVAL, lambda done: done.requests_per_second),
    Speed("resume", "runs/s", "pretrain --resume unfinished --json", lambda done: 1 / done.seconds),
)


def main() -> None:
    options = _options()
    trees = (options.before.resolve(), options.after.resolve())
    speeds = [one for one in SPEEDS if not options.only or one.name in options.only]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        prepare(place, trees[0])
        for tree in dict.fromkeys(trees):
            command(GENERATE, tree, place)  # each compiles its decoder, once
        print(
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        print(
            "| what | unit | before: median (lowest to highest) | after | after / before: median (lowest to highest) |"
        )
        print("|---|---|---|---|---|", flush=True)
        for speed in speeds:
            pairs = [[measured(speed, tree, place) for tree in trees] for _ in range(options.rounds * speed.repeats)]
            before, after = zip(*pairs, strict=True)
            ratios = [new / old for old, new in pairs]
            told = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"| {speed.name} | {speed.unit} | {spread(before)} | {spread(after)} | {told} |", flush=True)
    print(f"{time.perf_counter() - began:.0f} s in all")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="BEFORE_SRC")
    parser.add_argument("after", type=Path, metavar="AFTER_SRC")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", action="append", choices=[one.name for one in SPEEDS])
    options = parser.parse_args()
    for source in (options.before, options.after):
        if not (source / "gptkit" / "__main__.py").is_file():
            parser.error(f"{source} holds no gptkit: name a checkout's src/")
    if not os.environ.get("GPTKIT_TEST_DATA"):
        parser.error("GPTKIT_TEST_DATA is not set: it has GPT-2's tokenizer, LAMBADA and RTE")
    return options


def prepare(place: Path, before: Path) -> None:
    """Write a model of GPT-2's shape, the heads of two data sets, and two runs: a finished and an interrupted one."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    data = Path(os.environ["GPTKIT_TEST_DATA"])
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(place / "plain")
    tokenizer = shlex.quote(str(data / "tokenizers" / "gpt2"))
    command(f"convert plain gpt2 --tokenizer {tokenizer} --json", before, place)
    shutil.rmtree(place / "plain")
    (place / "RTE").mkdir()
    for split, count in (("train", LM_EXAMPLES), ("dev", 32)):
        copy_head(data / "tasks" / "RTE" / f"{split}.tsv", place / "RTE" / f"{split}.tsv", count + 1)
    copy_head(data / "zero_shot" / "lambada_test.jsonl", place / "lambada.jsonl", PASSAGES)
    command("pretrain --steps 2 --out run --json", before, place)
    shutil.copytree(place / "run", place / "kept")
    (place / "kept" / "result.json").unlink()
    shutil.rmtree(place / "kept" / "model")


def copy_head(source: Path, target: Path, lines: int) -> None:
    with open(source, encoding="utf-8") as file:
        target.write_text("".join(line for line, _ in zip(file, range(lines), strict=False)), encoding="utf-8")


def measured(speed: Speed, tree: Path, place: Path) -> float:
    for name in ("new", "unfinished"):
        shutil.rmtree(place / name, ignore_errors=True)
    if "unfinished" in speed.line:
        shutil.copytree(place / "kept", place / "unfinished")
    return speed.read(command(speed.line, tree, place))


def command(line: str, tree: Path, place: Path) -> Done:
    """Run a command line of a tree in a folder; each tree has a cache of its own."""
    cache = place / "caches" / re.sub(r"\W", "-", str(tree))
    environment = os.environ | {"PYTHONPATH": str(tree), "GPTKIT_CACHE": str(cache)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gptkit", *shlex.split(line)], cwd=place, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"gptkit {line} under {tree}: {done.stdout}{done.stderr}")
    return Done(seconds, json.loads(done.stdout) if "--json" in line else {}, done.stderr)


if __name__ == "__main__":
    main()
