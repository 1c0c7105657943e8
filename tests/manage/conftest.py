"""A small run, trained once, which tests copy or leave as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptkit.cli.main import main

TEXT = "".join(f"line {number} of a small text\n" for number in range(300))
SHAPE = {"model_type": "gptkit", "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished pretrain run of 8 steps with 4 snapshots, which could have been given more steps."""
    folder = tmp_path_factory.mktemp("small run")
    (folder / "text.txt").write_text(TEXT)
    (folder / "shape.json").write_text(json.dumps(SHAPE))
    (folder / "four.yaml").write_text("snapshots: 4\nsample_tokens: 0\n")
    values = {"model": folder / "shape.json", "tokenizer": "char", "steps": 8, "tokens_per_step": 64, "save_every": 4}
    values |= {"sequence_length": 32, "learning_rate": 0.03, "schedule": "constant", "device": "cpu"}
    values |= {"precision": "fp32", "compile": "off", "recipe": folder / "four.yaml", "out": folder / "run"}
    flags = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["pretrain", str(folder / "text.txt"), *flags]) == 0
    return folder / "run"
