"""A GPT without a causal mask: what its tokens see, and who may load it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt_toy import SIZES, ids, shaken
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, MaskedConfig, parse_config
from gptkit.model.loading import load_model, save_model
from gptkit.model.model_types import ANY, CAUSAL
from gptkit.model.modeling_masked import MaskedGPT


def masked_toy() -> MaskedGPT:
    model: MaskedGPT = shaken(MaskedGPT(MaskedConfig(**SIZES, mask_token_id=60))).eval()
    return model


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_token_sees_every_other_token_and_no_padding(implementation: str) -> None:
    model, batch = masked_toy(), ids()
    model.set_attn_implementation(implementation)
    changed = batch.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 60
    before = model.transformer(batch).last_hidden_state
    assert (model.transformer(changed).last_hidden_state - before)[:, 0].abs().max() > 1e-3
    seen = torch.ones_like(batch)
    seen[:, 7:] = 0
    padded = model.transformer(batch, attention_mask=seen).last_hidden_state[:, :7]
    torch.testing.assert_close(padded, model.transformer(batch[:, :7]).last_hidden_state)


def test_it_loads_where_a_command_takes_it_and_nowhere_else(tmp_path: Path) -> None:
    model = masked_toy()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, types=ANY)
    assert isinstance(loaded, MaskedGPT)
    torch.testing.assert_close(loaded(ids()).logits, model(ids()).logits)
    for types in (CAUSAL, frozenset({"gptkit"})):
        with pytest.raises(InputError, match="a masked model predicts no next token"):
            load_model(tmp_path, types=types)


def test_a_mask_token_belongs_to_a_masked_model_alone() -> None:
    raw = GPTConfig(**SIZES).to_diff_dict()
    with pytest.raises(InputError, match="unknown key 'mask_token_id'"):
        parse_config({**raw, "mask_token_id": 60}, "config.json")
    masked = {**raw, "model_type": "gptkit-masked"}
    with pytest.raises(InputError, match="mask_token_id is missing"):
        parse_config(masked, "config.json")
    with pytest.raises(InputError, match="mask_token_id must be an id below vocab_size"):
        parse_config({**masked, "mask_token_id": 61}, "config.json")
