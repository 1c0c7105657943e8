"""GPTConfig: GPT-2 where nothing is said, and no config.json with a word it does not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import GPT2Config, OpenAIGPTConfig

from gptkit.errors import InputError
from gptkit.model.configuration_gpt import FOREIGN, GPTConfig, foreign_config, hf_config, parse_config, read_config


def test_what_is_left_out_is_gpt2() -> None:
    ours, theirs = GPTConfig(), GPT2Config()
    shared = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "layer_norm_epsilon")
    for name in (*shared, "embd_pdrop", "attn_pdrop", "resid_pdrop", "initializer_range", "tie_word_embeddings"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.pre_norm
    assert (ours.hidden_size, ours.num_hidden_layers) == (768, 12)


def test_positions_start_as_each_family_starts_them() -> None:
    assert GPTConfig().position_initializer_range == 0.01
    assert GPTConfig(pre_norm=False).position_initializer_range == 0.02
    assert GPTConfig(position_initializer_range=0.3).position_initializer_range == 0.3


@pytest.mark.parametrize(
    "wrong", [{"n_layer": "3"}, {"n_head": 5}, {"n_layer": 0}, {"embd_pdrop": 1.0}, {"activation_function": "relu"}]
)
def test_wrong_values_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(StrictDataclassError):
        GPTConfig(**wrong)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(wrong))
    with pytest.raises(InputError, match=next(iter(wrong))) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("key", "fix"),
    [("n_layers", "'n_layer'"), ("hidden_size", "'n_embd'"), ("scale", "choose one of"), ("auto_map", "remove")],
)
def test_unknown_keys_are_refused_with_a_suggestion(key: str, fix: str) -> None:
    with pytest.raises(InputError, match=key) as caught:
        parse_config({"n_layer": 2, key: 3}, "config.json")
    assert fix in str(caught.value.fix)


@pytest.mark.parametrize("text", ["[1]", '{"n_layer": 2,\n}', "\xff"])
def test_a_file_that_is_no_json_object_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value.where)


def test_a_saved_configuration_is_read_back(tmp_path: Path) -> None:
    config = GPTConfig(n_layer=3, pre_norm=False, bos_token_id=7, use_cache=False, id2label={0: "no", 1: "yes"})
    config.save_pretrained(tmp_path)
    assert "auto_map" not in (tmp_path / "config.json").read_text()
    assert read_config(tmp_path / "config.json").to_dict() == config.to_dict()


def test_a_language_models_config_json_says_nothing_of_a_head(tmp_path: Path) -> None:
    """The keys that gptkit 1.0 wrote, in its order."""
    GPTConfig().save_pretrained(tmp_path)
    keys = "activation_function attn_pdrop bos_token_id embd_pdrop eos_token_id initializer_range layer_norm_epsilon "
    keys += "model_type n_embd n_head n_inner n_layer n_positions pad_token_id position_initializer_range pre_norm "
    keys += "resid_pdrop tie_word_embeddings transformers_version use_cache vocab_size"
    assert list(json.loads((tmp_path / "config.json").read_text())) == keys.split()


def test_transformers_configurations_are_read_and_written() -> None:
    gpt2 = GPT2Config(n_layer=3, n_inner=100, activation_function="gelu", resid_pdrop=0.3)
    ours = parse_config(gpt2.to_dict(), "config.json")
    assert (ours.n_layer, ours.n_inner, ours.activation_function, ours.resid_pdrop) == (3, 100, "gelu", 0.3)
    assert ours.eos_token_id == 50256
    assert hf_config(ours).to_dict() == gpt2.to_dict()
    gpt1 = OpenAIGPTConfig(n_layer=2)
    ours = parse_config(gpt1.to_dict(), "config.json")
    assert (ours.pre_norm, ours.n_positions, ours.vocab_size) == (False, 512, 40478)
    assert hf_config(ours).to_dict() == gpt1.to_dict()


@pytest.mark.parametrize(
    "raw",
    [
        {"model_type": "gpt2", "activation_function": "relu"},
        {"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True},
        {"model_type": "gpt2", "add_cross_attention": True},
        {"model_type": "openai-gpt", "afn": "relu"},
        {"model_type": "gpt2", "quantization_config": {"bits": 8}},
        {"model_type": "llama"},
        {"model_type": "gptkit", "id2label": ["bad", "good"]},
        {"model_type": "gptkit", "id2label": {"bad": "0"}},
    ],
)
def test_what_has_no_counterpart_here_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(InputError):
        parse_config(raw, "config.json")


@pytest.mark.parametrize(
    "general",
    [{"dtype": "x"}, {"dtype": 5}, {"id2label": [1]}, {"is_encoder_decoder": True}, {"return_dict": 0}],
)
@pytest.mark.parametrize("kind", ["gpt2", "openai-gpt"])
def test_what_any_model_of_transformers_has_is_left_out(kind: str, general: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": kind, **general}))
    assert foreign_config(path).to_dict() == FOREIGN[kind]().to_dict()
    assert read_config(path) == parse_config({"model_type": kind}, "config.json")


@pytest.mark.parametrize("unknown", [{"n_inner": 100}, {"activation_function": "gelu"}])
def test_what_openai_gpt_cannot_express_is_refused(unknown: dict[str, object]) -> None:
    with pytest.raises(InputError):
        hf_config(GPTConfig(pre_norm=False, **unknown))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_an_activation_that_transformers_lacks_is_not_exported(pre_norm: bool) -> None:
    config = GPTConfig(pre_norm=pre_norm)
    vars(config)["activation_function"] = "brand_new"
    with pytest.raises(InputError, match="does not exist in transformers"):
        hf_config(config)


def test_special_tokens_outside_a_small_vocabulary_are_dropped() -> None:
    assert parse_config({"model_type": "gpt2", "vocab_size": 100}, "config.json").eos_token_id is None
