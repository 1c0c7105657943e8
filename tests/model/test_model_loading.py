"""Presets, configurations and model directories: exact sizes, the same bits back, and nothing but safetensors."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers import initialization as init

import gptkit.model  # registers the Auto classes
from gpt_toy import FAMILIES, SIZES, ids, toy
from gptkit.convert.command import load_source
from gptkit.errors import InputError, UsageError
from gptkit.model.configuration_gpt import GPTConfig, quiet_transformers, read_config
from gptkit.model.loading import config_from, load_model, save_model
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTModel
from gptkit.model_files import model_directory, model_presets

families = pytest.mark.parametrize("pre_norm", FAMILIES)

PUBLISHED = {
    "gpt1": 116_534_784,
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}


# --- presets and configurations ---


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = GPTForCausalLM(read_config(model_presets()[name]))
    assert model.num_parameters() == PUBLISHED[name]


def test_every_preset_takes_the_tokenizers_vocabulary() -> None:
    for name in model_presets():
        assert config_from(name, vocab_size=300).vocab_size == 300
    assert not config_from("gpt1", vocab_size=300).pre_norm


def test_a_config_file_keeps_its_vocabulary_and_must_hold_the_tokenizers(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"n_layer": 2, "vocab_size": 320}))
    assert config_from(str(path), vocab_size=300).vocab_size == 320
    with pytest.raises(InputError, match="vocab_size 320 is smaller than the tokenizer's 321"):
        config_from(str(path), vocab_size=321)
    path.write_text(json.dumps({"n_layer": 2}))
    assert config_from(str(path), vocab_size=300).vocab_size == 300


def test_a_misspelt_preset_is_a_usage_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="gpt2-smal") as caught:
        config_from("gpt2-smal", vocab_size=300)
    assert "'gpt2-small'" in str(caught.value.fix)


# --- directories of ours ---


@families
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_comes_back_bit_by_bit_and_in_silence(
    pre_norm: bool, tied: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = toy(pre_norm, tie_word_embeddings=tied)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not loaded.training
    assert (loaded.lm_head.weight is loaded.transformer.wte.weight) == tied
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@families
def test_auto_classes_know_it(pre_norm: bool, tmp_path: Path) -> None:
    model = toy(pre_norm)
    save_model(model, tmp_path)
    with quiet_transformers():
        found = AutoModelForCausalLM.from_pretrained(tmp_path)
        body = AutoModel.from_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), GPTConfig)
    assert isinstance(found, gptkit.model.GPTForCausalLM)
    assert isinstance(body, GPTModel)
    assert torch.equal(found(ids()).logits, model(ids()).logits)
    assert torch.equal(found.lm_head(body(ids()).last_hidden_state), model(ids()).logits)


def test_a_bf16_model_is_loaded_in_fp32(tmp_path: Path) -> None:
    model = toy().to(torch.bfloat16)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert loaded.config.dtype == torch.float32
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.float())
    assert load_model(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_run_directory_stands_for_its_model(tmp_path: Path) -> None:
    save_model(toy(), tmp_path / "run" / "model")
    assert model_directory(tmp_path / "run") == tmp_path / "run" / "model"
    assert torch.equal(load_model(tmp_path / "run")(ids()).logits, toy()(ids()).logits)


def test_shards_are_read(tmp_path: Path) -> None:
    with quiet_transformers():
        toy().save_pretrained(tmp_path, max_shard_size="40KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert torch.equal(load_model(tmp_path)(ids()).logits, toy()(ids()).logits)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    with quiet_transformers():
        toy().save_pretrained(tmp_path, max_shard_size="40KB")
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    save_file({**load_file(first), **load_file(second)}, second)
    refused(tmp_path, "is in another shard too")


def test_a_loaded_model_outlives_its_file(tmp_path: Path) -> None:
    save_model(toy(), tmp_path)
    loaded = load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert torch.equal(loaded(ids()).logits, toy()(ids()).logits)


# --- hf:NAME ---


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Let a local directory stand in for a snapshot of the hub; return the calls made."""
    calls: list[Any] = []
    save_model(toy(), tmp_path / "snapshot")

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        calls.append((name, allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("gptkit.system.hub.require_hub", calls.append)
    return calls


def test_a_hub_name_is_probed_then_fetched(hub: list[Any]) -> None:
    assert torch.equal(load_model("hf:someone/gpt")(ids()).logits, toy()(ids()).logits)
    probe, (name, patterns) = hub
    assert (probe, name) == ("hf:someone/gpt", "someone/gpt")
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in patterns)


def test_a_hub_model_with_pickles_only_is_to_be_fetched_and_converted(hub: list[Any], tmp_path: Path) -> None:
    (tmp_path / "snapshot" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no safetensors") as caught:
        load_model("hf:someone/gpt")
    assert caught.value.fix.startswith("hf download someone/gpt --local-dir downloaded, then gptkit convert downloaded")


def test_a_hub_name_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.system.hub.require_hub", lambda what: None)
    with pytest.raises(InputError, match="cannot be fetched") as caught:
        load_model("hf:no/such/name")
    assert caught.value.where == "hf:no/such/name"


# --- refusals ---


def refused(directory: Path, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern) as caught:
        load_model(directory)
    assert "\n" not in str(caught.value)
    assert caught.value.where
    assert caught.value.fix


def test_only_safetensors_are_loaded(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "no such model directory")
    refused(tmp_path, "file not found")
    toy().config.save_pretrained(tmp_path)
    refused(tmp_path, "no model.safetensors")
    (tmp_path / "weights.bin").write_bytes(pickle.dumps({}))
    refused(tmp_path, "weights.bin is a pickle")
    refused(tmp_path / "weights.bin", "a file, not a model directory")
    (tmp_path / "model.safetensors").write_bytes(b"{}")
    refused(tmp_path, "damaged")


def test_a_directory_called_like_a_file_is_a_directory(tmp_path: Path) -> None:
    toy().config.save_pretrained(tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "no model.safetensors")


@pytest.mark.parametrize("name", ["ckpt.pt", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_other_formats_are_sent_to_convert(name: str, tmp_path: Path) -> None:
    toy().config.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps({}))
    for path in (tmp_path, tmp_path / name):
        refused(path, f"{re.escape(name)} is not safetensors")
        with pytest.raises(InputError, match="not safetensors") as caught:
            load_model(path)
        source = path if path.suffix == ".pt" else tmp_path
        assert str(caught.value.fix).startswith(f"gptkit convert {source} ")
    with pytest.raises(InputError, match="not safetensors"):
        config_from(str(tmp_path / name), vocab_size=61)
    save_model(toy(), tmp_path)
    assert load_model(tmp_path).config.n_layer == SIZES["n_layer"]  # what lies beside safetensors is left alone


def test_gguf_is_read_by_convert_alone(tmp_path: Path) -> None:
    (tmp_path / "gpt2.Q8_0.gguf").write_bytes(b"GGUF")
    for path in (tmp_path, tmp_path / "gpt2.Q8_0.gguf"):
        refused(path, "gpt2.Q8_0.gguf is not safetensors")
        with pytest.raises(InputError, match=r"truncated, or damaged"):
            load_source(path)


def test_remote_code_is_refused(tmp_path: Path) -> None:
    save_model(toy(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    refused(tmp_path, "auto_map")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eos_token_id": 10**9}, "eos_token_id 1000000000 is outside the vocabulary of 61 "),
        ({"eos_token_id": [3, -1]}, "eos_token_id -1 is outside"),
        ({"eos_token_id": "abc"}, r"^eos_token_id cannot be 'abc' \("),
        ({"n_layer": 10**8}, "n_layer is 100,000,000, but the file has 3 layers"),
        ({"n_inner": 10**18}, r"has shape \(128, 32\)"),
    ],
)
def test_a_config_that_lies_is_one_line(
    change: dict[str, Any], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_model(toy(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    refused(tmp_path, message)
    assert capfd.readouterr().err == ""  # nor a line of transformers' own


ELSEWHERE = ["../model.safetensors", "/tmp/model.safetensors", "a\\b.safetensors", "model.bin"]
UNUSABLE = ["a\0.safetensors", "a\ud800.safetensors", "a\n.safetensors"]


@pytest.mark.parametrize("name", ELSEWHERE + UNUSABLE)
def test_shards_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    toy().config.save_pretrained(tmp_path / "model")
    save_model(toy(), tmp_path)
    index = {"weight_map": {"transformer.wte.weight": name}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path / "model", "not the name of a .safetensors file in this directory")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_model(toy(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    wpe = state.pop("transformer.wpe.weight")
    save_file(state, tmp_path / "model.safetensors")
    refused(tmp_path, r"transformer\.wpe\.weight is missing")
    save_file({**state, "transformer.wpe.weight": wpe[:-1].clone()}, tmp_path / "model.safetensors")
    refused(tmp_path, r"has shape \(23, 32\), not \(24, 32\)")


# --- traps of transformers v5 that nothing above would catch ---


def test_starting_weights_spares_what_was_loaded() -> None:
    model = toy()
    before = model.transformer.wte.weight.clone()
    model.transformer.wte.weight._is_hf_initialized = True
    model._init_weights(model.transformer.wte)
    assert torch.equal(model.transformer.wte.weight, before)
    with init.guard_torch_init_functions():
        model._init_weights(model.transformer.wpe)
    assert model.transformer.wpe.weight.std() < 0.02


def test_the_head_is_found_by_the_loss_and_by_generate() -> None:
    model = toy()
    assert model.loss_type == "ForCausalLM"
    assert model.can_generate()
    assert model.get_input_embeddings() is model.transformer.wte
    assert model.get_output_embeddings() is model.lm_head


def test_the_vocabulary_can_grow() -> None:
    model = toy()
    before = model(ids()).logits
    with quiet_transformers():
        model.resize_token_embeddings(SIZES["vocab_size"] + 3, mean_resizing=False)
    assert model.config.vocab_size == SIZES["vocab_size"] + 3
    assert model.lm_head.weight is model.transformer.wte.weight
    torch.testing.assert_close(model(ids()).logits[..., :-3], before)
