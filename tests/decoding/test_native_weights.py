"""Weights mapped without torch are bitwise those of load_model; what only load_model understands is left to it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from gpt_toy import FAMILIES, SIZES, shaken, toy
from gptkit.decoding.native.weights import map_weights, shape_of, usable
from gptkit.errors import InputError
from gptkit.finetune.inputs import add_task_head, head_config
from gptkit.model.configuration_gpt import GPTConfig, parse_config, quiet_transformers
from gptkit.model.loading import load_model, save_model
from gptkit.model_files import OWN_KEYS, SILENT_KEYS, TRANSFORMERS_TYPES, GPTShape

families = pytest.mark.parametrize("pre_norm", FAMILIES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


def same_as_loaded(directory: Path) -> dict[str, Any]:
    """Assert that shape, names, order and all bits equal load_model's; return the arrays."""
    mapped = map_weights(directory)
    assert mapped is not None
    shape, arrays = mapped[0], usable(mapped[1])
    loaded = load_model(directory)
    assert_same_shape(shape, loaded.config)
    assert list(arrays) == list(loaded.state_dict())
    for name, tensor in loaded.state_dict().items():
        assert same_values(arrays[name], tensor), name
    assert (arrays["lm_head.weight"] is arrays["transformer.wte.weight"]) == shape.tie_word_embeddings
    return arrays


FORWARD = (  # what a forward pass needs to know
    *("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "inner_width", "pre_norm", "activation_function"),
    *("layer_norm_epsilon", "tie_word_embeddings"),
)


def assert_same_shape(shape: GPTShape, config: GPTConfig) -> None:
    assert [getattr(shape, name) for name in FORWARD] == [getattr(config, name) for name in FORWARD]


def same_values(array: np.ndarray[Any, Any], tensor: torch.Tensor) -> bool:
    if array.dtype == np.uint16:
        bits = np.pad(array[..., None], [(0, 0)] * array.ndim + [(1, 0)])  # bf16 is the upper half of fp32
        array = bits.view(np.float32)[..., 0]
    return array.dtype == np.float32 and np.array_equal(array.view(np.uint32), tensor.numpy().view(np.uint32))


# --- what is understood ---


@families
@dtypes
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_ours(pre_norm: bool, dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    save_model(toy(pre_norm, tie_word_embeddings=tied).to(dtype), tmp_path)
    arrays = same_as_loaded(tmp_path)
    is_mapped = dtype != torch.float16
    assert all(array.flags.owndata != is_mapped and array.flags.writeable != is_mapped for array in arrays.values())
    assert {array.dtype for array in arrays.values()} == {
        np.dtype(np.uint16 if dtype == torch.bfloat16 else np.float32)
    }


def test_shards_unusual_sizes_and_another_gelu(tmp_path: Path) -> None:
    model = toy(n_inner=40, activation_function="gelu", layer_norm_epsilon=1e-3, eos_token_id=60)
    with quiet_transformers():
        model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    same_as_loaded(tmp_path)


@families
def test_a_fine_tuned_model_yields_its_language_model(pre_norm: bool, tmp_path: Path) -> None:
    head = head_config(task="t", format="classification", labels=("no", "yes"), markers=(61, 62, 63))
    save_model(add_task_head(toy(pre_norm), head, seed=0), tmp_path)
    assert same_as_loaded(tmp_path)["lm_head.weight"].shape == (64, 32)


def foreign(pre_norm: bool, **changes: Any) -> PreTrainedModel:
    sizes = {**SIZES, **changes}
    model = GPT2LMHeadModel(GPT2Config(**sizes)) if pre_norm else OpenAIGPTLMHeadModel(OpenAIGPTConfig(**sizes))
    return shaken(model)


@families
@dtypes
def test_a_model_of_transformers(pre_norm: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    with quiet_transformers():
        foreign(pre_norm).to(dtype).save_pretrained(tmp_path)
    same_as_loaded(tmp_path)


@pytest.mark.parametrize("changes", [{"n_inner": 300, "tie_word_embeddings": False}, {"activation_function": "gelu"}])
def test_variants_of_gpt2(changes: dict[str, Any], tmp_path: Path) -> None:
    with quiet_transformers():
        foreign(True, **changes).save_pretrained(tmp_path, max_shard_size="20KB")
    same_as_loaded(tmp_path)


def test_gpt2_as_it_lies_on_the_hub(tmp_path: Path) -> None:
    """Names without prefix, masks saved as buffers, a config.json of many keys."""
    with quiet_transformers():
        body = shaken(GPT2Model(GPT2Config(**SIZES)))
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 24, 24, dtype=torch.uint8) for layer in range(SIZES["n_layer"])}
    save_file({**body.state_dict(), **masks}, tmp_path / "model.safetensors", {"format": "pt"})
    config = {
        **{key: SIZES[key] for key in SIZES},
        **{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1},
        **{"bos_token_id": 50256, "eos_token_id": 50256, "embd_pdrop": 0.1, "initializer_range": 0.02},
        **{"layer_norm_epsilon": 1e-5, "model_type": "gpt2", "n_ctx": 24, "resid_pdrop": 0.1},
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    same_as_loaded(tmp_path)


# --- what is not ---


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})

    return edit


def cut_short(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def empty(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"")


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def no_object(directory: Path) -> None:
    (directory / "config.json").write_text("[]")


BIAS = "transformer.h.0.attn.c_attn.bias"
DAMAGES = [
    *(cut_short, empty, pickled, no_object),
    edit_config(unheard_of=1),
    edit_config(n_layer=10**12),
    edit_config(n_layer=2),
    edit_config(n_embd="32"),
    edit_config(n_embd=True),
    edit_config(vocab_size=62),
    edit_config(n_head=5),
    edit_config(eos_token_id=61),
    edit_config(layer_norm_epsilon=0),
    edit_config(model_type="llama"),
    edit_config(quantization_config={}),
    edit_config(auto_map={}),
    edit_config(format="entailment"),
    edit_config(tie_word_embeddings=False),
    edit_tensors(lambda tensors: tensors.pop(BIAS)),
    edit_tensors(lambda tensors: tensors.update({BIAS: tensors[BIAS][1:].clone()})),
    edit_tensors(lambda tensors: tensors.update({BIAS: tensors[BIAS][None].clone()})),
    edit_tensors(lambda tensors: tensors.update({"score.weight": torch.ones(2, 2)})),
    edit_tensors(lambda tensors: tensors.update({"transformer.h.0.attn.masked_bias": torch.ones(1)})),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_load_model_refuses_is_not_mapped(damage: Callable[[Path], None], tmp_path: Path) -> None:
    save_model(toy(), tmp_path)
    damage(tmp_path)
    assert map_weights(tmp_path) is None
    with pytest.raises(InputError):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        *({"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}, {"add_cross_attention": True}),
        *({"activation_function": "relu"}, {"n_embd": 32.5}, {"auto_map": {}}, {"quantization_config": {}}),
    ],
)
def test_what_has_no_counterpart_is_not_mapped(changes: dict[str, Any], tmp_path: Path) -> None:
    with quiet_transformers():
        foreign(True).save_pretrained(tmp_path)
    edit_config(**changes)(tmp_path)
    assert map_weights(tmp_path) is None
    with pytest.raises(InputError):
        load_model(tmp_path)


def test_other_types_and_doubled_tensors_are_left_to_load_model(tmp_path: Path) -> None:
    save_model(toy(), tmp_path)
    edit_tensors(lambda tensors: tensors.update({BIAS: tensors[BIAS].double()}))(tmp_path)
    assert map_weights(tmp_path) is None
    load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with quiet_transformers():
        toy().save_pretrained(tmp_path, max_shard_size="40KB")
    first, second = sorted(tmp_path.glob("*.safetensors"))[:2]
    save_file({**load_file(second), **load_file(first)}, second, {"format": "pt"})
    assert map_weights(tmp_path) is None


# --- one set of rules ---


def test_the_keys_are_those_of_the_configuration() -> None:
    theirs = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    assert {field.name for field in dataclasses.fields(GPTConfig)} - theirs == OWN_KEYS
    found = shape_of({})
    assert found is not None
    assert_same_shape(found, GPTConfig())


VALUES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, 2, 12, 64, 128, 10**400, -1, 0.0, 0.5, 1.0, 1e-5, float("nan"), float("inf")]
    ),
    st.sampled_from(["gelu", "gelu_new", "relu", "entailment", "", [], [1], [1, -1], ["a"], {}, {"0": "a"}, {"a": 0}]),
)
KEYS = sorted((OWN_KEYS | TRANSFORMERS_TYPES.keys() | SILENT_KEYS) - {"model_type"})
FOREIGN_KEYS = sorted({*OWN_KEYS, "scale_attn_weights", "afn", "n_ctx"})


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
@example({"id2label": {"0": "a"}, "label2id": {"a": 0}})
@example({"format": "entailment", "start_token_id": 1, "delimiter_token_id": 2, "extract_token_id": 3})
@settings(max_examples=150)
def test_shapes_of_ours_are_what_the_configuration_says(raw: dict[str, Any]) -> None:
    if (found := shape_of(raw)) is not None:
        assert_same_shape(found, parse_config(raw, "config.json"))


@given(st.sampled_from(["gpt2", "openai-gpt"]), st.dictionaries(st.sampled_from(FOREIGN_KEYS), VALUES, max_size=2))
@settings(max_examples=150)
def test_shapes_of_theirs_are_what_the_configuration_says(kind: str, changes: dict[str, Any]) -> None:
    whole = {**SIZES, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "afn": "gelu", "model_type": kind}
    assert shape_of(whole) is not None
    raw = {**whole, **changes}
    if (found := shape_of(raw)) is not None:
        assert_same_shape(found, parse_config(raw, "config.json"))


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys; import gptkit.decoding.native.weights, gptkit.model_files, gptkit.training.finished_runs;"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
