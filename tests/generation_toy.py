"""A small random model with its tokenizer, to generate from."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.system.run_layout import MANIFEST, directory_name, record_of
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.training.checkpoint_files import render_manifest

TEXT = "First Citizen: before we proceed any further, hear me speak \x1b[1m\n" * 30
POSITIONS = 24


def write_model(folder: Path, tokenizer_spec: str = "char", seed: int = 0, text: str = TEXT) -> Path:
    tokenizer = train_tokenizer(tokenizer_spec, [text])
    torch.manual_seed(seed)
    sizes = {"n_positions": POSITIONS, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPTForCausalLM(GPTConfig(vocab_size=2 * len(tokenizer), **sizes))  # half of the rows have no token
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def unfinished_run(folder: Path, model: Path, *, step: int) -> Path:
    """Return a run directory with a snapshot of a model's weights and no result."""
    snapshot = folder / "snapshots" / directory_name(step)
    shutil.copytree(model, folder / "start", ignore=shutil.ignore_patterns("*.safetensors"))
    snapshot.mkdir(parents=True)
    shutil.copy(model / "model.safetensors", snapshot)
    (snapshot / MANIFEST).write_text(render_manifest(step, [record_of(snapshot / "model.safetensors")]))
    return folder
