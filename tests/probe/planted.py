"""A model of two layers in which one hidden unit carries the label of a text, its last letter; and the texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import save_model
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.kinds import train_tokenizer

LETTERS = "abcdefgh"
UNIT = (1, 37)  # layer, unit


def write_texts(folder: Path, labels_of: str = "last", counts: tuple[int, int, int] = (120, 80, 80)) -> Path:
    """Write a task of random texts that end in x or y: the label is the last letter, or drawn at random."""
    draw = np.random.default_rng(0)
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        rows = []
        for row in range(count):
            letters = "".join(draw.choice(list(LETTERS), 9))
            last = "xy"[row % 2] if labels_of == "last" else "x"
            rows.append(f"{letters}{last},{'xy'[row % 2 if labels_of == 'last' else int(draw.integers(2))]}")
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *rows, ""]))
    task = folder / "planted.yaml"
    task.write_text(
        "name: planted\nformat: classification\nlabels: [x, y]\ncolumns: {text: text, label: label}\n"
        "splits: {train: train.csv, dev: dev.csv, test: test.csv}\n"
    )
    return task


def write_model(folder: Path, *, planted: bool) -> Path:
    """Write a model; `planted`: x and y differ in two dimensions that only UNIT reads and nothing writes."""
    tokenizer = train_tokenizer("char", [f"{LETTERS}xy\n"])
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=len(tokenizer), n_positions=32, n_embd=32, n_layer=2, n_head=2)
    model = GPTForCausalLM(config).eval()
    x, y = tokenizer.convert_tokens_to_ids(["x", "y"])
    if planted:
        layer, unit = UNIT
        with torch.no_grad():
            embeddings = model.transformer.wte.weight
            embeddings[:, :2] = model.transformer.wpe.weight[:, :2] = 0
            embeddings[y] = embeddings[x]
            embeddings[x, :2], embeddings[y, :2] = torch.tensor([0.2, -0.2]), torch.tensor([-0.2, 0.2])
            for block in model.transformer.h:
                for matrix in (block.attn.c_attn, block.mlp.c_fc):
                    matrix.weight[:, :2] = 0
                for matrix in (block.attn.c_proj, block.mlp.c_proj):
                    matrix.weight[:2] = 0
            model.transformer.h[layer].mlp.c_fc.weight[unit] = 0
            model.transformer.h[layer].mlp.c_fc.weight[unit, 0] = 1.0
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    return folder
