"""The LSTM beside GPT: its loss, its states, and who may load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from gpt_toy import ids, lstm_toy
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import parse_config
from gptkit.model.loading import load_model, save_model
from gptkit.model.model_types import ANY, CAUSAL
from gptkit.model.modeling_lstm import LSTMForCausalLM, State


@pytest.mark.parametrize("loss_only", [True, False])
def test_the_loss_is_that_of_a_plain_loop_over_tokens(loss_only: bool) -> None:
    model, batch = lstm_toy(), ids()
    cells = []
    for layer in model.transformer.h:
        cell = torch.nn.LSTMCell(layer.lstm.input_size, 24)
        cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.lstm.state_dict().items()})
        cells.append((cell, (torch.zeros(2, 24), torch.zeros(2, 24))))
    total = torch.zeros(())
    for place in range(batch.shape[1] - 1):
        hidden = model.transformer.wte.weight[batch[:, place]]
        for number, (cell, state) in enumerate(cells):
            hidden, other = cell(hidden, state)
            cells[number] = cell, (hidden, other)
        logits = model.transformer.projection(hidden) @ model.transformer.wte.weight.T
        total = total + F.cross_entropy(logits, batch[:, place + 1], reduction="sum")
    loss = model(input_ids=batch, labels=batch, loss_only=loss_only).loss
    assert loss.item() == pytest.approx(total.item() / (2 * (batch.shape[1] - 1)), rel=1e-6)


def test_states_continue_a_text() -> None:
    model, batch = lstm_toy(), ids()
    states: list[State] = [(torch.zeros(2, 24), torch.zeros(2, 24)) for _ in range(2)]
    body: Any = model.transformer
    parts = [body(part, states=states).last_hidden_state for part in batch.split(5, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), body(batch).last_hidden_state)


def test_it_loads_where_a_command_takes_it_and_nowhere_else(tmp_path: Path) -> None:
    model = lstm_toy()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, types=CAUSAL)
    assert isinstance(loaded, LSTMForCausalLM)
    torch.testing.assert_close(loaded(ids()).logits, model(ids()).logits)
    assert isinstance(load_model(tmp_path, types=ANY), LSTMForCausalLM)
    with pytest.raises(InputError, match="an LSTM has no attention"):
        load_model(tmp_path)


@pytest.mark.parametrize("key", ["n_head", "pre_norm", "attn_pdrop", "activation_function", "mask_token_id"])
def test_keys_of_other_types_are_refused(key: str) -> None:
    with pytest.raises(InputError, match=f"unknown key '{key}'"):
        parse_config({"model_type": "gptkit-lstm", "vocab_size": 61, key: 1}, "config.json")
