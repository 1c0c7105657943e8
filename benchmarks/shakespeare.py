"""A character model of Shakespeare: the recipe `shakespeare-char`, end to end, beside nanoGPT's CPU recipe, in turn.

    python benchmarks/shakespeare.py NANOGPT TEXT [--rounds 2] [--json FILE]

NANOGPT is a checkout of nanoGPT, which is copied, not written to; TEXT is tinyshakespeare. nanoGPT's recipe is the one
for a CPU in its README, in its own precision: on a CPU train.py computes in float32, whatever its `dtype`. Its training
time is the sum of its own times of the 2,000 steps, where one that includes an evaluation counts as the median step.
Ours is the whole command, from the shell to its end, with an empty cache: imports, tokenizing, training, two
evaluations, saving and plotting. Both models are then scored alike, in fp32: every character of the last tenth but the
first, in windows of 64.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from side_by_side import spread
from torch.nn import functional as F

from gptkit.model.loading import load_model
from gptkit.pretrain.job import validate
from gptkit.system.processor import cpu_has_bf16
from gptkit.text.tokenizers.loading import tokenizer_in
from gptkit.training.rules import cpu_name

POSITIONS, STEPS, TRAINED = 64, 2000, 0.9  # nanoGPT's; TRAINED is the part of the text before the validation's
SETTINGS = {
    "device": "cpu",
    "compile": False,
    "eval_iters": 20,
    "log_interval": 1,
    "block_size": POSITIONS,
    "batch_size": 12,
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "max_iters": STEPS,
    "lr_decay_iters": STEPS,
    "dropout": 0.0,
}
TRAIN = ["train.py", "config/train_shakespeare_char.py", *(f"--{name}={value}" for name, value in SETTINGS.items())]
GPTKIT = ["-m", "gptkit", "pretrain", "text.txt", "--recipe", "shakespeare-char", "--out", "run", "--json"]
STEP = re.compile(r"^iter (\d+): .* time ([\d.]+)ms", re.MULTILINE)
ASKED = 0.25  # of nanoGPT's training time, at a loss that is not above its loss

Round = dict[str, float]


def main() -> None:
    options = parsed_options()
    rounds = []
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        nanogpt = prepare_nanogpt(Path(name) / "nanogpt", options.nanogpt, options.text)
        for index in range(options.rounds):
            own = Path(name) / str(index)
            own.mkdir()
            rounds.append(train_nanogpt(nanogpt) | train_gptkit(own, options.text))
            print(f"round {index + 1}: {json.dumps(rounds[-1])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rounds": rounds}, indent=1))
    print_table(rounds)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nanogpt", type=Path, metavar="NANOGPT")
    parser.add_argument("text", type=Path, metavar="TEXT")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures of every round")
    options = parser.parse_args()
    if not (options.nanogpt / "train.py").is_file():
        parser.error(f"{options.nanogpt} holds no train.py: name a checkout of nanoGPT")
    if not options.text.is_file():
        parser.error(f"{options.text} is not a file")
    return options


def machine() -> str:
    precision = "bf16" if cpu_has_bf16() else "fp32"
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {capability}, {threads} threads, torch {torch.__version__}; nanoGPT fp32, gptkit {precision}"


def prepare_nanogpt(place: Path, checkout: Path, text: Path) -> Path:
    """Copy the checkout and prepare its data set as its README says."""
    shutil.copytree(checkout, place, ignore=shutil.ignore_patterns(".git", "assets", "out*"))
    shutil.copy(text, place / "data" / "shakespeare_char" / "input.txt")
    python(["data/shakespeare_char/prepare.py"], place)
    return place


def python(arguments: list[str], place: Path, **environment: str) -> tuple[str, float]:
    """Run Python in a folder; return what it printed and its seconds."""
    command, variables = [sys.executable, *arguments], os.environ | environment
    start = time.perf_counter()
    done = subprocess.run(command, cwd=place, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout, time.perf_counter() - start


def train_nanogpt(place: Path) -> Round:
    said, seconds = python(TRAIN, place)
    steps = {int(step): float(milliseconds) / 1000 for step, milliseconds in STEP.findall(said)}
    evaluated = {int(step) for step in re.findall(r"^step (\d+): train loss", said, re.MULTILINE)}
    plain = [steps[step] for step in steps if step not in evaluated]
    return {
        "nanogpt_train_seconds": sum(plain) + statistics.median(plain) * (STEPS - len(plain)),
        "nanogpt_seconds": seconds,
        "nanogpt_loss": nanogpt_loss(place),
    }


def train_gptkit(place: Path, text: Path) -> Round:
    shutil.copy(text, place / "text.txt")
    said, seconds = python(GPTKIT, place, GPTKIT_CACHE=str(place / "cache"))
    train_seconds = json.loads(said)["train_seconds"]
    return {"seconds": seconds, "train_seconds": train_seconds, "loss": gptkit_loss(place, text)}


def nanogpt_loss(place: Path) -> float:
    """Return the loss of the checkpoint that train.py left."""
    sys.path.insert(0, str(place))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    checkpoint = torch.load(place / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    model = GPT(GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    ids = np.fromfile(place / "data" / "shakespeare_char" / "val.bin", dtype=np.uint16)
    return scored(Peer(model), ids)


class Peer(torch.nn.Module):
    """nanoGPT's model with the arguments and the result that `validate` knows."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, shift_labels: torch.Tensor, **_: Any) -> SimpleNamespace:
        logits, _loss = self.model(input_ids, shift_labels)  # without targets it returns the last position alone
        return SimpleNamespace(loss=F.cross_entropy(logits.flatten(0, 1), shift_labels.flatten(), reduction="sum"))


def gptkit_loss(place: Path, text: Path) -> float:
    characters = text.read_text(encoding="utf-8")
    held_out = characters[int(len(characters) * TRAINED) :]
    ids = tokenizer_in(place / "run" / "model")(held_out, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(held_out)
    return scored(load_model(place / "run" / "model"), np.array(ids, dtype=np.uint16))


@torch.no_grad()
def scored(model: torch.nn.Module, ids: Any) -> float:
    return validate(model.eval(), ids, sequence_length=POSITIONS, utf8_bytes=None)["val_loss"]


def print_table(rounds: list[Round]) -> None:
    """Print each figure, the median of the rounds and its spread, with what is asked."""
    shares = [one["seconds"] / one["nanogpt_train_seconds"] for one in rounds]
    margins = [one["nanogpt_loss"] - one["loss"] for one in rounds]
    columns = {name: [one[name] for one in rounds] for name in rounds[0]}
    print("| what | nanoGPT | gptkit |")
    print("|---|---|---|")
    print(f"| training, s | {spread(columns['nanogpt_train_seconds'])} | {spread(columns['train_seconds'])} |")
    print(f"| whole command, s | {spread(columns['nanogpt_seconds'])} | {spread(columns['seconds'])} |")
    print(f"| validation loss | {losses(columns['nanogpt_loss'])} | {losses(columns['loss'])} |")
    print(f"gptkit's whole command / nanoGPT's training: {spread(shares)} (asked: {ASKED} at most)")
    print(f"nanoGPT's loss - gptkit's: {min(margins):.4f} or more (asked: 0 or more)")


def losses(figures: list[float]) -> str:
    return ", ".join(f"{figure:.4f}" for figure in dict.fromkeys(figures))


if __name__ == "__main__":
    main()
