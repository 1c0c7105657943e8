"""nanoGPT's checkpoints are read however they were saved: with numpy's numbers, from wrappers, as bare state dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptkit.convert.nanogpt import notes, read
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM

WIDTH, HEADS = 128, 2
SIZES: dict[str, Any] = {"vocab_size": 50, "n_positions": 16, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS}


def weights(**sizes: Any) -> dict[str, torch.Tensor]:
    """Return a state dict as nanoGPT saves it, with the causal masks of its earlier versions."""
    torch.manual_seed(0)
    model = GPTForCausalLM(GPTConfig(**{**SIZES, **sizes}, activation_function="gelu"))
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 16, 16).tril() for layer in range(2)}
    return {**model.state_dict(), **masks}


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_numbers_of_numpy_are_read(tmp_path: Path) -> None:
    arguments = {"vocab_size": np.int64(50), "block_size": np.int32(16), "n_embd": np.uint16(WIDTH), "n_layer": 2}
    arguments |= {"n_head": np.int64(HEADS), "dropout": np.float32(0.25), "bias": np.bool_(True)}
    content = {"model": weights(), "model_args": arguments, "best_val_loss": np.float64(1.5), "iter_num": np.int64(9)}
    config, state = read(saved(content, tmp_path / "ckpt.pt"))
    assert {name: getattr(config, name) for name in SIZES} == SIZES
    assert config.embd_pdrop == 0.25
    assert torch.equal(state["transformer.h.1.attn.c_attn.weight"], weights()["transformer.h.1.attn.c_attn.weight"])


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_a_bare_state_dict_has_the_sizes_of_its_tensors_and_heads_of_64(prefix: str, tmp_path: Path) -> None:
    path = saved({prefix + name: tensor for name, tensor in weights().items()}, tmp_path / "weights.pth")
    config, state = read(path)
    assert {name: getattr(config, name) for name in SIZES} == SIZES
    assert config.n_inner is None
    assert config.activation_function == "gelu"
    expected = {name: tensor for name, tensor in weights().items() if not name.endswith(".attn.bias")}
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    (note,) = notes(path)
    assert "assuming 64 dimensions a head (n_head 2) and the erf GELU" in note


def test_the_number_of_heads_can_be_stated_alone(tmp_path: Path) -> None:
    path = saved({"model": weights(n_head=4), "model_args": {"n_head": 4}}, tmp_path / "ckpt.pt")
    assert read(path)[0].n_head == 4
    assert notes(path) == []
    narrow = saved(weights(n_embd=48), tmp_path / "narrow.pt")
    with pytest.raises(InputError, match=r'width 48 is not a multiple of 64.*"model_args": \{"n_head": 4\}'):
        read(narrow)


def test_a_bare_state_dict_without_biases_gets_zeros(tmp_path: Path) -> None:
    kept = {name: tensor for name, tensor in weights(n_inner=96).items() if not name.endswith("bias")}
    config, state = read(saved(kept, tmp_path / "weights.pt"))
    assert config.n_inner == 96
    assert not state["transformer.h.1.mlp.c_fc.bias"].any()
    assert state["transformer.h.1.mlp.c_fc.bias"].shape == (96,)


def test_a_head_with_weights_of_its_own_is_kept(tmp_path: Path) -> None:
    state = {**weights(), "lm_head.weight": torch.randn(50, WIDTH)}
    config, found = read(saved(state, tmp_path / "weights.pt"))
    assert not config.tie_word_embeddings
    assert torch.equal(found["lm_head.weight"], state["lm_head.weight"])


def shared_lists(depth: int) -> list[Any]:
    """Return what is 2**depth items long where it is shown."""
    return [inner := shared_lists(depth - 1), inner] if depth else []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a state dict"),
        ({}, "no matrix transformer.wte.weight"),
        ({"model": weights(), "model_args": 3}, "model_args is not a dictionary"),
        ({"model": weights(), "model_args": {"n_head": shared_lists(60)}}, "n_head in model_args is not a name with"),
        ({"model": weights(), "model_args": {3: 3}}, "a key in model_args is not a name"),
        ({"model": weights(), "model_args": {"n_experts": 3}}, "unknown key 'n_experts'"),
        ({"model": weights(), "model_args": {"n_head": np.float64(2.5)}}, "n_head"),
        ({"fc.weight": torch.ones(2, 2)}, "no matrix transformer.wte.weight"),
        ({**weights(), "transformer.wpe.weight": torch.ones(3)}, "no matrix transformer.wpe.weight"),
        (
            {name: tensor.T.contiguous() if "c_attn.w" in name else tensor for name, tensor in weights().items()},
            r"matrices are \(in, out\), as transformers has them",
        ),
        ({**weights(), "transformer.h.7.ln_1.weight": torch.ones(WIDTH)}, "missing"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(saved(content, tmp_path / "ckpt.pt"))
