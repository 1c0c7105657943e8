"""Run directories as gptkit leaves them, made without training: all that `gptkit runs` reads, but no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from gptkit.recipes import CONFIG_HEADER

NO_TENSORS = (2).to_bytes(8, "little") + b"{}"  # an empty safetensors file


def make_run(
    path: Path,
    command: str = "pretrain",
    *,
    steps: int = 20,
    until: int = 20,
    result: dict[str, Any] | None = None,
    tokenizer_json: str = "{}",
    **config: object,
) -> Path:
    """Write a run that has come to step `until`, saved there, with a row every fifth step; finished with a result."""
    saved = path / "checkpoints" / f"step-{until:06d}"
    for folder in (path / "model", path / "start", saved, path / "snapshots" / saved.name):
        folder.mkdir(parents=True)
    own = {"steps": steps} if command == "pretrain" else {"task": "rte", "epochs": 2}
    header = CONFIG_HEADER.format(command=command)
    (path / "config.yaml").write_text(f"{header}\n{yaml.safe_dump({**own, **config}, sort_keys=False)}")
    rows = []
    for step in range(5, until + 1, 5):
        measured = {"val_perplexity": 9.0, "bits_per_byte": 40 / step} if command == "pretrain" else {"accuracy": 0.75}
        rows.append({"step": step, "tokens": 10 * step, "loss": 60 / step, "elapsed_seconds": step / 2})
        rows[-1] |= {"val_loss": 50 / step, **measured} if step % 10 == 0 else {}
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "run.lock").write_text("process 4194304 on elsewhere\n")
    (saved / "state.json").write_text(json.dumps({"step": until, "steps": steps}))
    for folder in (saved, path / "snapshots" / saved.name):
        (folder / "model.safetensors").write_bytes(NO_TENSORS)
        (folder / "MANIFEST.json").write_text("{}")
    for folder in (path / "model", path / "start"):
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text(tokenizer_json)
    (path / "loss.png").write_bytes(b"png")
    if result is not None:
        (path / "model" / "model.safetensors").write_bytes(NO_TENSORS)
        found = {"command": command, "run_dir": "", "model_dir": "", "seed": 0, "finished_at": FINISHED}
        (path / "result.json").write_text(json.dumps({**found, "steps": until, **result}))
    return path


FINISHED = "2026-01-02T03:04:05+00:00"
PRETRAINED = {"val_loss": 2.5, "val_perplexity": 12.18, "bits_per_byte": 2.0, "train_loss": 3.0, "tokens": 200}
FINE_TUNED = {"task": "rte", "model": "m", "metrics": {"accuracy": 0.75}, "per_seed": [{}], "val_loss": 0.5}
