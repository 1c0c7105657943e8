"""Quantizing a trained model costs little perplexity."""

from __future__ import annotations

import math
from pathlib import Path
from pydoc_data.topics import topics  # English text that comes with every Python

import numpy as np
import pytest
import torch
from torch import nn

from gptkit.decoding.engines import Piece, choose_engine
from gptkit.decoding.native.engine import NativeEngine
from gptkit.decoding.text_options import Precision, Quantize, TextModelOptions
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.kinds import train_tokenizer

VOCABULARY = 320
LENGTH = 64
BATCH = 4
HELD_OUT = 64  # rows


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    """The topics' text as rows (row, LENGTH + 1) in random order."""
    text = "\n".join(topics[name] for name in sorted(topics))
    (ids,) = encode_pieces(train_tokenizer(f"bpe:{VOCABULARY}", [text]), [text])
    whole = len(ids) // (LENGTH + 1) * (LENGTH + 1)
    rows = torch.tensor(ids[:whole].tolist()).view(-1, LENGTH + 1)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def train(rows: torch.Tensor, steps: int) -> GPTForCausalLM:
    """Return a model of 2 layers of 128."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": LENGTH, "n_embd": 128, "n_layer": 2, "n_head": 4}
    model = GPTForCausalLM(GPTConfig(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).train()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (BATCH,))]
        loss = model(input_ids=batch[:, :-1], shift_labels=batch[:, 1:], loss_only=True).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def perplexity(folder: Path, rows: np.ndarray, quantize: Quantize = "none", precision: Precision = "fp32") -> float:
    """Score the rows together, token by token, as generation does."""
    options = TextModelOptions(device="cpu", precision=precision, quantize=quantize)
    engine = choose_engine(folder, options, tokens=1).open()
    assert isinstance(engine, NativeEngine)
    engine.open(len(rows), LENGTH)
    nll = 0.0
    for place in range(LENGTH):
        logits = engine.forward([Piece(row, place, [int(ids[place])]) for row, ids in enumerate(rows)])
        logits = logits.astype(np.float64)  # (row, vocab)
        likelihoods = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        nll -= likelihoods[np.arange(len(rows)), rows[:, place + 1]].sum()
    return math.exp(nll / (len(rows) * LENGTH))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("steps", "learned"), [(250, 45), pytest.param(1200, 20, marks=pytest.mark.slow)])
def test_perplexity_hardly_changes(steps: int, learned: int, tokens: torch.Tensor, tmp_path: Path) -> None:
    """The longer the training, the more the weights' last bits matter."""
    train(tokens[:-HELD_OUT], steps).save_pretrained(tmp_path)
    held_out = tokens[-HELD_OUT:].numpy()
    exact = perplexity(tmp_path, held_out)
    assert exact < learned
    for precision in ("fp32", "int8"):  # of activations
        assert abs(perplexity(tmp_path, held_out, "int8", precision) / exact - 1) < 0.001
        assert abs(perplexity(tmp_path, held_out, "int4", precision) / exact - 1) < 0.015
