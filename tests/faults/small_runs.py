"""The small command lines that faults are injected into, and what two runs of one must have in common."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from timings import is_time

STEPS, SAVE_EVERY = 20, 2
PLACES = {"run_dir", "model_dir", "model", "resumed_from"}
WORDS = ["a", "red", "cat", "saw", "the", "old", "green", "house", "by", "my", "river", "and", "sang", "it", "once"]
SHAPE = {"model_type": "gptkit", "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
LSTM = {"model_type": "gptkit-lstm", "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_inner": 24}
FLAGS = {
    "micro_batch": 2,  # two or more a step
    "dropout": 0.1,
    "learning_rate": 0.003,
    "log_every": 1,
    "save_every": SAVE_EVERY,
    "precision": "fp32",
    "device": "cpu",
    "compile": "off",
}


@dataclass(frozen=True)
class SmallRuns:
    """Command lines over a folder of small data; `changes` are options by name, None leaves one out."""

    folder: Path

    @property
    def pretrained(self) -> Path:
        """The model that `finetune` starts from: `write` leaves it to the caller to make it there."""
        return self.folder / "pretrained" / "model"

    def pretrain(self, out: Path, **changes: object) -> list[str]:
        """Return 20 steps of two micro-batches, evaluated twice, saved every other step."""
        values = {
            "model": self.folder / "shape.json",
            "tokenizer": "char",
            "steps": STEPS,
            "tokens_per_step": 64,
            "sequence_length": 16,
            "eval_every": STEPS // 2,
            "recipe": self.folder / "small.yaml",
            "out": out,
        }
        return ["pretrain", str(self.folder / "text.txt"), *_flags(FLAGS | values | changes)]

    def finetune(self, out: Path, **changes: object) -> list[str]:
        """Return two epochs of ten steps, each evaluated, saved every other step and at the best epoch."""
        values = {
            "task": "rte",
            "data": self.folder / "data",
            "model": self.pretrained,
            "epochs": 2,
            "batch_size": 4,
            "out": out,
        }
        return ["finetune", *_flags(FLAGS | values | changes)]

    def words(self, kind: str, out: Path, **changes: object) -> list[str]:
        """Return the command line of `kind`: pretrain, of an LSTM too, or finetune."""
        if kind == "lstm":
            return self.pretrain(out, model=self.folder / "lstm.json", **changes)
        return self.pretrain(out, **changes) if kind == "pretrain" else self.finetune(out, **changes)

    def write(self) -> None:
        """Write the data: a text, the shape of a model, a labelled task."""
        (self.folder / "shape.json").write_text(json.dumps(SHAPE))
        (self.folder / "lstm.json").write_text(json.dumps(LSTM))
        (self.folder / "small.yaml").write_text("sample_tokens: 4\n")
        lines = [f"{_text(number, 'pretraining')}.\n" for number in range(60)]
        (self.folder / "text.txt").write_text("".join(lines))
        data = self.folder / "data"
        data.mkdir()
        for split, count in {"train": 40, "dev": 6}.items():
            rows = [f"{i}\t{_text(i, split)}\t{_text(-i, split)}\t{_label(i)}\n" for i in range(count)]
            (data / f"{split}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))


class Reference(Protocol):
    """Returns the uninterrupted run of a kind, pretrain or finetune."""

    def __call__(self, kind: str, **changes: object) -> Path: ...


def _flags(values: dict[str, Any]) -> list[str]:
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in values.items() if value is not None]
    return [word for pair in pairs for word in pair]


def _text(number: int, salt: str) -> str:
    chance = random.Random(f"{salt} {number}")
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 6)))


def _label(number: int) -> str:
    return "entailment" if number % 2 else "not_entailment"


def checkpoints_of(run: Path) -> list[Path]:
    """Return the committed checkpoints, oldest first."""
    return sorted(path.parent for path in run.glob("checkpoints/step-*/MANIFEST.json"))


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl without its times; every line must be one row."""
    return [_untimed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def identical(left: Path, right: Path) -> list[str]:
    """Return in what two finished runs differ: weights, moments, state, snapshots, rows, result, the curve's picture.

    Times may differ, the paths of the runs, and damaged checkpoints that were set aside; the picture is compared where
    both runs have the same name. Runs of several seeds are compared seed by seed.
    """
    return list(_differences(left, right))


def _differences(left: Path, right: Path) -> Iterator[str]:
    seeds = [path.name for path in sorted(left.glob("seed-*"))]
    for seed in seeds:
        yield from (f"{seed}: {one}" for one in _differences(left / seed, right / seed))
    for one in ("start", "checkpoints", "snapshots", "model"):
        if not (left / one).exists() and not (right / one).exists():  # finished seeds have no checkpoints
            continue
        names = [{path.name for path in (run / one).iterdir()} - {"damaged"} for run in (left, right)]
        if names[0] != names[1]:
            yield f"{one}/ holds {sorted(names[0])}, {sorted(names[1])}"
            return
    patterns = ("start/*", "checkpoints/step-*/*", "snapshots/step-*/*", "model/*")
    files = [path.relative_to(left) for pattern in patterns for path in left.glob(pattern)]
    for name in files:
        if not (right / name).is_file():
            yield f"{name} is missing"
        elif name.name == "README.md" or (name.name == "MANIFEST.json" and "checkpoints" in name.parts):  # times
            continue
        elif _content(left / name) != _content(right / name):
            yield f"{name} differs"
    if _content(left / "result.json") != _content(right / "result.json"):
        yield "result.json differs"
    if seeds:
        return
    if rows_of(left) != rows_of(right):
        yield "metrics.jsonl differs"
    if left.name == right.name and (left / "loss.png").read_bytes() != (right / "loss.png").read_bytes():
        yield "loss.png differs"


def _content(path: Path) -> object:
    return _untimed(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(one) for key, one in value.items() if not is_time(key) and key not in PLACES}
    return [_untimed(one) for one in value] if isinstance(value, list) else value
