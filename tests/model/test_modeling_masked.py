"""A GPT without a causal mask: what its tokens see, and who may load it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from gpt_toy import SIZES, ids, shaken
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, MaskedConfig, parse_config
from gptkit.model.loading import load_model, save_model
from gptkit.model.model_types import ANY, CAUSAL
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model.modeling_masked import MaskedDoubleHeadsModel, MaskedGPT


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


def test_bf16_training_on_a_cpu_sees_both_sides_as_fp32_does() -> None:
    """Short sequences are then attended to by plain products, not by SDPA."""
    torch.manual_seed(0)
    changes = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
    model, batch = MaskedGPT(MaskedConfig(**SIZES, **changes, mask_token_id=60)), ids()
    expected = model.transformer(batch, use_cache=False).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.train().transformer(batch, use_cache=False).last_hidden_state
    torch.testing.assert_close(hidden.float(), expected, atol=0.1, rtol=0.05)
    (gradient,) = torch.autograd.grad(hidden[:, 0].float().square().sum(), [model.transformer.wpe.weight])
    assert gradient[batch.shape[1] - 1].abs().max() > 0  # the first token reads the last


def tuned_toy(format: str = "similarity") -> MaskedDoubleHeadsModel:
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop", "classifier_dropout"), 0.0)
    own = {"format": format, "id2label": {0: "a", 1: "b"}, "start_token_id": 58, "extract_token_id": 59}
    config = MaskedConfig(**{**SIZES, "vocab_size": 62}, **rates, **own, delimiter_token_id=61, mask_token_id=57)
    model: MaskedDoubleHeadsModel = shaken(MaskedDoubleHeadsModel(config)).eval()
    return model


def test_padding_changes_neither_logits_nor_losses_and_the_extract_token_reads_all_before_it() -> None:
    model = tuned_toy()
    batch = ids(4, 8).view(2, 2, 8) % 57
    extract = torch.tensor([[7, 4], [5, 6]])
    logits = model(batch, extract).logits
    for example, sequences in enumerate(batch):
        states = [
            model.transformer(tokens[None, : end + 1]).last_hidden_state[0, end]
            for tokens, end in zip(sequences, extract[example], strict=True)
        ]
        torch.testing.assert_close(logits[example], model.score(torch.stack(states).sum(0)))
    padded = torch.cat([batch, torch.full((2, 2, 5), 3)], -1)
    torch.testing.assert_close(model(padded, extract).logits, logits)


@pytest.mark.parametrize("loss_only", [True, False])
def test_the_auxiliary_loss_is_a_mean_over_sequences_of_means_over_masked_tokens(loss_only: bool) -> None:
    model = tuned_toy()
    batch, extract, labels = ids(4, 8).view(2, 2, 8) % 57, torch.tensor([[7, 7], [7, 5]]), torch.tensor([0, 1])
    targets, masked = torch.full_like(batch, -100), batch.clone()
    for place, read in {(0, 0, 2): 57, (0, 0, 3): 11, (0, 1, 1): 57, (1, 1, 4): 57}.items():  # none in (1, 0)
        targets[place], masked[place] = batch[place], read
    found = model(batch, extract, labels, 0.5, loss_only=loss_only, masked_ids=masked, masked_targets=targets)
    expected = torch.zeros(())
    for example in range(2):
        for sequence in range(2):
            end = int(extract[example, sequence])
            states = model.transformer(masked[example, sequence, None, : end + 1]).last_hidden_state[0]
            own = targets[example, sequence, : end + 1]
            if (own >= 0).any():
                expected = expected + F.cross_entropy(model.lm_head(states), own) / 2
    torch.testing.assert_close(found.lm_loss, expected / 2)
    torch.testing.assert_close(found.classifier_loss, F.cross_entropy(model(batch, extract).logits, labels))
    torch.testing.assert_close(found.loss, found.classifier_loss + 0.5 * found.lm_loss)


def test_a_batch_without_masked_tokens_has_no_auxiliary_loss_and_finite_gradients() -> None:
    model, batch, extract = tuned_toy(), ids(4, 8).view(2, 2, 8) % 57, torch.full((2, 2), 7)
    named = {"masked_ids": batch, "masked_targets": torch.full_like(batch, -100)}
    found = model(batch, extract, torch.tensor([0, 1]), 0.5, loss_only=True, **named)
    found.loss.backward()
    assert found.lm_loss == 0
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())
    with pytest.raises(ValueError, match="lm_coef needs masked_ids"):
        model(batch, extract, torch.tensor([0, 1]), 0.5)


def test_it_loads_where_a_command_takes_it_and_nowhere_else(tmp_path: Path) -> None:
    model = masked_toy()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, types=ANY)
    assert isinstance(loaded, MaskedGPT)
    torch.testing.assert_close(loaded(ids()).logits, model(ids()).logits)
    for types in (CAUSAL, frozenset({"gptkit"})):
        with pytest.raises(InputError, match="a masked model predicts no next token"):
            load_model(tmp_path, types=types)


def test_neither_class_takes_the_weights_of_the_other(tmp_path: Path) -> None:
    save_model(masked_toy(), tmp_path / "masked")
    save_model(GPTForCausalLM(GPTConfig(**SIZES)), tmp_path / "causal")
    for loading, folder in ((GPTForCausalLM, "masked"), (MaskedGPT, "causal"), (MaskedDoubleHeadsModel, "causal")):
        with pytest.raises(ValueError, match=f"{loading.__name__} is a model of type gptkit"):
            loading.from_pretrained(tmp_path / folder)


def test_a_mask_token_belongs_to_a_masked_model_alone() -> None:
    raw = GPTConfig(**SIZES).to_diff_dict()
    with pytest.raises(InputError, match="unknown key 'mask_token_id'"):
        parse_config({**raw, "mask_token_id": 60}, "config.json")
    masked = {**raw, "model_type": "gptkit-masked"}
    for lacking in (masked, {**masked, "mask_token_id": None}):
        with pytest.raises(InputError, match="mask_token_id is missing"):
            parse_config(lacking, "config.json")
    with pytest.raises(InputError, match="mask_token_id must be an id below vocab_size"):
        parse_config({**masked, "mask_token_id": 61}, "config.json")
