"""Weights from and to transformers, nanoGPT and OpenAI's GPT-1: equal logits by other forwards, equal bits back."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from gpt_toy import FAMILIES, SIZES, ids, shaken, toy
from gptkit.console import Console
from gptkit.convert import hf
from gptkit.convert.command import load_source
from gptkit.convert.dtypes import NAMES
from gptkit.convert.formats import importer_of
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import quiet_transformers
from gptkit.model.loading import load_model, save_model
from gptkit.model.modeling_gpt import GPTForCausalLM

families = pytest.mark.parametrize("pre_norm", FAMILIES)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def transformers_toy(pre_norm: bool, seed: int = 0, **changes: Any) -> Any:
    """Return a tiny GPT2LMHeadModel or OpenAIGPTLMHeadModel in eval mode."""
    none = dict.fromkeys(("bos_token_id", "eos_token_id"))
    if pre_norm:
        model: Any = GPT2LMHeadModel(GPT2Config(**{**SIZES, **none, **changes}))
    else:
        model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(**{**SIZES, **changes}))
    return shaken(model, seed).eval()


def save(model: Any, directory: Path) -> Path:
    with quiet_transformers():
        model.save_pretrained(directory)
    return directory


@families
@pytest.mark.parametrize("seed", range(3))
def test_logits_are_those_of_transformers(pre_norm: bool, seed: int, tmp_path: Path) -> None:
    theirs = transformers_toy(pre_norm, seed)
    ours = load_model(save(theirs, tmp_path))
    input_ids = ids(3, 11, seed)
    torch.testing.assert_close(ours(input_ids).logits, theirs(input_ids).logits, **CLOSE)
    pads = torch.tensor([0, 3, 6])[:, None]
    columns = torch.arange(11)
    for mask in ((columns >= pads).long(), (columns < 11 - pads).long()):  # left, right
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        expected = theirs(input_ids, attention_mask=mask, position_ids=positions).logits[mask.bool()]
        torch.testing.assert_close(ours(input_ids, attention_mask=mask).logits[mask.bool()], expected, **CLOSE)
    loss = theirs(input_ids, labels=input_ids).loss
    torch.testing.assert_close(ours(input_ids, labels=input_ids).loss, loss, **CLOSE)


@pytest.mark.parametrize("changes", [{"activation_function": "gelu"}, {"n_inner": 40}, {"tie_word_embeddings": False}])
def test_gpt2_variants_compute_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = transformers_toy(True, **changes)
    ours = load_model(save(theirs, tmp_path))
    torch.testing.assert_close(ours(ids()).logits, theirs(ids()).logits, **CLOSE)
    write_hf(ours, tmp_path / "back")
    assert same_weights(tmp_path / "back", tmp_path)


def write_hf(model: GPTForCausalLM, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    hf.write(model, None, folder, NAMES[model.dtype], Console())


def same_weights(one: Path, other: Path) -> bool:
    """Whether two files hold the same bits under the same names, apart from the prefix that the hub leaves out."""
    left, right = (
        {name.removeprefix("transformer."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        for folder in (one, other)
    )
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@families
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_transformers_and_back_is_bitwise_equal(pre_norm: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    source = save(transformers_toy(pre_norm).to(dtype), tmp_path / "theirs")
    save_model(load_source(source), tmp_path / "ours")
    assert set(load_file(tmp_path / "ours" / "model.safetensors")) == toy(pre_norm).state_dict().keys() - {
        "lm_head.weight"
    }
    write_hf(load_source(tmp_path / "ours"), tmp_path / "back")
    assert same_weights(tmp_path / "back", source)
    back, config = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "back", source))
    assert back == config | {"n_ctx": config["n_positions"]}


@families
def test_to_transformers_and_back_is_bitwise_equal(pre_norm: bool, tmp_path: Path) -> None:
    model = toy(pre_norm, bos_token_id=5, eos_token_id=6)
    save_model(model, tmp_path / "ours")
    write_hf(model, tmp_path / "theirs")
    theirs_class = GPT2LMHeadModel if pre_norm else OpenAIGPTLMHeadModel
    with quiet_transformers():
        theirs = theirs_class.from_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(theirs(ids()).logits, model(ids()).logits, **CLOSE)
    save_model(load_source(tmp_path / "theirs"), tmp_path / "back")
    assert same_weights(tmp_path / "back", tmp_path / "ours")
    files = [tmp_path / name / "config.json" for name in ("back", "ours")]
    assert files[0].read_text() == files[1].read_text()


@families
def test_weights_without_prefix_and_with_old_masks_are_read(pre_norm: bool, tmp_path: Path) -> None:
    theirs = transformers_toy(pre_norm)
    save(theirs, tmp_path)
    body = dict(load_file(tmp_path / "model.safetensors"))  # as the hub's first gpt2 and openai-gpt are
    body = {name.removeprefix("transformer."): tensor for name, tensor in body.items()}
    for layer in range(SIZES["n_layer"]):
        body[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 24, 24).tril()
        body[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(body, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(load_model(tmp_path)(ids()).logits, theirs(ids()).logits, **CLOSE)


# --- pytorch_model.bin ---


def pickled(model: Any, directory: Path, *, shards: int = 1, zipped: bool = True) -> Path:
    """Write a model as transformers did before safetensors."""
    directory.mkdir()
    model.config.save_pretrained(directory)
    names = [f"pytorch_model-{number:05}-of-{shards:05}.bin" for number in range(shards)]
    names = names if shards > 1 else ["pytorch_model.bin"]
    state = model.state_dict()
    places = {name: names[number % shards] for number, name in enumerate(state)}
    for file in names:
        part = {name: state[name] for name, place in places.items() if place == file}
        torch.save(part, directory / file, _use_new_zipfile_serialization=zipped)
    if shards > 1:
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return directory


@families
@pytest.mark.parametrize("stored", [{}, {"shards": 3}, {"zipped": False}], ids=["zip", "shards", "before torch 1.6"])
def test_pytorch_model_bin_holds_the_same_bits(pre_norm: bool, stored: dict[str, Any], tmp_path: Path) -> None:
    theirs = transformers_toy(pre_norm)
    source = pickled(theirs, tmp_path / "source", **stored)
    write_hf(load_source(source), tmp_path / "back")
    assert same_weights(tmp_path / "back", save(theirs, tmp_path / "expected"))
    assert load_source(source).dtype == torch.float32


# --- nanoGPT ---


def nanogpt_weights(bias: bool) -> dict[str, Tensor]:
    """Return random weights under the names and in the shapes of nanoGPT's GPT."""
    width, generator = SIZES["n_embd"], torch.Generator().manual_seed(0)
    shapes = {"wte": (SIZES["vocab_size"], width), "wpe": (SIZES["n_positions"], width), "ln_f": (width,)}
    for layer in range(SIZES["n_layer"]):
        block = {"ln_1": (width,), "attn.c_attn": (3 * width, width), "attn.c_proj": (width, width)}
        block |= {"ln_2": (width,), "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
        shapes |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
    weights = {}
    for name, shape in shapes.items():
        weights[f"transformer.{name}.weight"] = torch.randn(shape, generator=generator) * 0.3 + (len(shape) == 1)
        if bias and not name.startswith("w"):
            weights[f"transformer.{name}.bias"] = torch.randn(shape[0], generator=generator)
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    return weights


def nanogpt_forward(weights: dict[str, Tensor], input_ids: Tensor) -> Tensor:
    """Return nanoGPT's logits, written down from its description: pre-LN blocks, erf GELU, optional biases."""

    def linear(name: str, hidden: Tensor) -> Tensor:
        return F.linear(hidden, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, hidden: Tensor) -> Tensor:
        centred = hidden - hidden.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"]
        return scaled + weights.get(f"{name}.bias", torch.zeros(()))

    def attention(name: str, hidden: Tensor) -> Tensor:
        heads = [
            part.view(*part.shape[:2], SIZES["n_head"], -1).transpose(1, 2)
            for part in linear(f"{name}.c_attn", hidden).chunk(3, dim=-1)
        ]
        query, key, value = heads  # (batch, head, position, head_dim)
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        future = torch.ones(scores.shape[-2:]).triu(1).bool()
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ value
        return linear(f"{name}.c_proj", mixed.transpose(1, 2).flatten(2))

    hidden = weights["transformer.wte.weight"][input_ids]
    hidden = hidden + weights["transformer.wpe.weight"][: input_ids.shape[1]]
    for layer in range(SIZES["n_layer"]):
        block = f"transformer.h.{layer}"
        hidden = hidden + attention(f"{block}.attn", norm(f"{block}.ln_1", hidden))
        inner = linear(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", hidden))
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        hidden = hidden + linear(f"{block}.mlp.c_proj", inner)
    return norm("transformer.ln_f", hidden) @ weights["lm_head.weight"].T


def nanogpt_checkpoint(path: Path, weights: dict[str, Tensor], **changes: Any) -> Path:
    arguments = {name: SIZES[name] for name in ("n_layer", "n_head", "n_embd", "vocab_size")}
    arguments |= {"block_size": SIZES["n_positions"], "dropout": 0.2, **changes}
    checkpoint = {"model": weights, "model_args": arguments, "iter_num": 5, "best_val_loss": torch.tensor(1.5)}
    path.parent.mkdir(exist_ok=True)
    torch.save({**checkpoint, "optimizer": {"state": {}}, "config": {"dataset": "x", "lr": 1e-3}}, path)
    return path


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_nanogpt_checkpoint_computes_what_nanogpt_does(bias: bool, prefix: str, tmp_path: Path) -> None:
    weights = nanogpt_weights(bias)
    stored = {prefix + name: tensor for name, tensor in weights.items()}
    stored[f"{prefix}transformer.h.0.attn.bias"] = torch.ones(1, 1, 24, 24).tril()  # its mask where flash is missing
    path = nanogpt_checkpoint(tmp_path / "out" / "ckpt.pt", stored, bias=bias)
    model = load_source(path)
    expected = nanogpt_forward(weights, ids())
    assert expected.std() > 1
    torch.testing.assert_close(model(ids()).logits, expected, **CLOSE)
    assert model.config.resid_pdrop == 0.2
    save_model(load_source(path.parent), tmp_path / "ours")
    torch.testing.assert_close(load_model(tmp_path / "ours")(ids()).logits, model(ids()).logits)


# --- OpenAI's GPT-1 ---


def openai_params(directory: Path, theirs: OpenAIGPTLMHeadModel) -> Path:
    """Write a model as OpenAI published GPT-1: one flat vector in ten files, and its shapes."""
    state = theirs.transformer.state_dict()
    names = ["positions_embed.weight", "tokens_embed.weight"]
    for layer in range(theirs.config.n_layer):
        for name in ("attn.c_attn", "attn.c_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2"):
            names += [f"h.{layer}.{name}.weight", f"h.{layer}.{name}.bias"]
    arrays = [state[name].numpy() for name in names]
    arrays = [array if array.ndim == 1 or number < 2 else array[None] for number, array in enumerate(arrays)]
    directory.mkdir(exist_ok=True)
    (directory / "params_shapes.json").write_text(json.dumps([array.shape for array in arrays]))
    flat = np.concatenate([array.ravel() for array in arrays])
    for number, part in enumerate(np.array_split(flat, 11)):  # eleven, so that 10 must come after 9
        np.save(directory / f"params_{number}.npy", part)
    return directory


def test_openai_params_compute_what_transformers_does(tmp_path: Path) -> None:
    theirs = transformers_toy(False, n_embd=128, n_head=2, n_layer=2)
    model = load_source(openai_params(tmp_path, theirs))
    assert not model.config.pre_norm
    torch.testing.assert_close(model(ids()).logits, theirs(ids()).logits, **CLOSE)
    save_model(model, tmp_path / "ours")
    write_hf(load_source(tmp_path / "ours"), tmp_path / "theirs")
    saved = save(theirs, tmp_path / "saved")
    assert same_weights(tmp_path / "theirs", saved)


# --- refusals ---


class Harmful:
    """Unpickling it would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def refused(path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern) as caught:
        load_source(path)
    assert "\n" not in str(caught.value)
    assert caught.value.where
    assert caught.value.fix


def test_pickles_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Harmful(), "model_args": {}}, tmp_path / "ckpt.pt")
    refused(tmp_path, "weights_only")
    (tmp_path / "ckpt.pt").write_bytes(pickle.dumps(Harmful()))
    refused(tmp_path / "ckpt.pt", "weights_only")
    directory = pickled(transformers_toy(True), tmp_path / "bin")
    for content in (pickle.dumps(Harmful()), b"", b"PK", (tmp_path / "ckpt.pt").read_bytes()):
        (directory / "pytorch_model.bin").write_bytes(content)
        refused(directory, "weights_only")
    odd = (Harmful(), torch.ones(2).to_sparse(), torch.ones(2, device="meta"), "text", 7)
    for one in odd:
        torch.save({"transformer.wte.weight": one}, directory / "pytorch_model.bin")
        refused(directory, "weights_only|not a state dict")
    (directory / "pytorch_model.bin").unlink()
    os.mkfifo(directory / "pytorch_model.bin")
    refused(directory, "not a regular file")
    (directory / "pytorch_model.bin").unlink()
    (tmp_path / "ckpt.pt").unlink()
    os.mkfifo(tmp_path / "ckpt.pt")
    refused(tmp_path, "not a regular file")
    (directory / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../pytorch_model.bin"}}')
    refused(directory, "not the name of a .bin file in this directory")
    for content in ("{}", '{"weight_map": 3}', '{"weight_map": {}}'):
        (directory / "pytorch_model.bin.index.json").write_text(content)
        refused(directory, "no weight_map that names the shards")
    (directory / "pytorch_model.bin.index.json").unlink()
    (directory / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    refused(directory, r"no pytorch_model\.bin\.index\.json, which lists the shards")
    directory = openai_params(tmp_path / "params", transformers_toy(False, n_embd=128, n_head=2, n_layer=1))
    np.save(directory / "params_0.npy", np.array([Harmful()], dtype=object), allow_pickle=True)
    refused(directory, "cannot be read")
    assert "code ran" not in capsys.readouterr().out


def test_foreign_files_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    refused(tmp_path, "no model here")
    refused(tmp_path / "absent", "no such file")
    weights = nanogpt_weights(bias=True)
    refused(nanogpt_checkpoint(tmp_path / "a.pt", weights, n_embd=64), "has shape")
    refused(nanogpt_checkpoint(tmp_path / "b.pt", weights, n_layer=4), "n_layer is 4, but the file has 3 layers")
    refused(nanogpt_checkpoint(tmp_path / "c.pt", {**weights, "more": torch.ones(1)}), "no place")
    refused(nanogpt_checkpoint(tmp_path / "d.pt", weights, use_rmsnorm=True), "use_rmsnorm")
    refused(nanogpt_checkpoint(tmp_path / "e.pt", weights, n_head="4"), "n_head")
    directory = openai_params(tmp_path / "params", transformers_toy(False, n_embd=128, n_head=2, n_layer=1))
    (directory / "params_10.npy").unlink()
    refused(directory, "numbers")
    header = (directory / "params_0.npy").read_bytes()[:128]
    for raw, message in (
        (re.sub(rb"\(\d+,\), } *", b"(%d,), }" % 10**15, header)[:127].ljust(127) + b"\n", "greater than file size"),
        (header.replace(b"<f4", b"<U1") + bytes(10**6), "not a flat one of float32"),
        (header.replace(b"<f4", b"<c8") + bytes(10**6), "not a flat one of float32"),
        (header.replace(b"}", b"("), "cannot be read"),
        (b"PK\x03\x04", "cannot be read"),
    ):
        (directory / "params_0.npy").write_bytes(raw)
        refused(directory, message)
    (directory / "params_shapes.json").write_text("[[1, 2], 3]")
    refused(directory, "12 tensors per layer")


@pytest.mark.parametrize(
    "sizes", [{"n_embd": 4 * 10**12}, {"n_layer": 10**9}, {"vocab_size": 10**18}, {"block_size": 10**18}]
)
@pytest.mark.parametrize("bias", [True, False])
def test_sizes_that_no_machine_holds_are_refused_by_the_tensors(
    sizes: dict[str, int], bias: bool, tmp_path: Path
) -> None:
    path = nanogpt_checkpoint(tmp_path / "ckpt.pt", nanogpt_weights(bias), bias=bias, **sizes)
    refused(path, "n_layer is 1,000,000,000, but the file has 3" if "n_layer" in sizes else "has shape")


def test_a_checkpoint_whose_names_are_none_is_refused(tmp_path: Path) -> None:
    weights = nanogpt_weights(bias=True)
    refused(nanogpt_checkpoint(tmp_path / "a.pt", {**weights, 7: torch.ones(1)}), "not a state dict")  # type: ignore[dict-item]
    checkpoint = torch.load(nanogpt_checkpoint(tmp_path / "b.pt", weights), weights_only=True)
    checkpoint["model_args"][7] = 1
    torch.save(checkpoint, tmp_path / "b.pt")
    refused(tmp_path / "b.pt", "a key in model_args is not a name")


def test_a_model_with_parts_of_another_kind_is_refused(tmp_path: Path) -> None:
    save(transformers_toy(True), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "score.weight": torch.zeros(2, 32)}, tmp_path / "model.safetensors")
    refused(tmp_path, "score.weight has no place in GPTForCausalLM")


def test_the_state_is_complete(tmp_path: Path) -> None:
    """Whoever reads a source can load it strictly."""
    source = save(transformers_toy(True), tmp_path)
    config, state = importer_of(source).read(source)
    GPTForCausalLM(config).load_state_dict(state, strict=True)
