"""llm.c's files: what its C code reads is what we wrote, bit by bit, and a header that lies is refused unread."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptkit.console import Console
from gptkit.convert import command, llmc
from gptkit.convert.options import ConvertOptions
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import save_model
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.kinds import train_tokenizer

VOCABULARY, PADDED, POSITIONS, WIDTH, LAYERS, HEADS = 300, 384, 10, 16, 2, 4
TEXT = "First Citizen: 今天 \N{GRINNING FACE}\r\nnaïve  hear me speak.\n"
DTYPES = {"f32": (3, torch.float32), "bf16": (5, torch.bfloat16)}


def model(**sizes: Any) -> GPTForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "n_positions": POSITIONS, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    return GPTForCausalLM(GPTConfig(**shape | sizes, initializer_range=0.2)).eval()


def written(folder: Path, dtype: str = "f32", spec: str | None = None) -> Path:
    tokenizer = None if spec is None else train_tokenizer(spec, [TEXT * 9])
    llmc.write(model(), tokenizer, folder, dtype, Console())
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_file_is_what_llmc_reads_bit_by_bit(dtype: str, tmp_path: Path) -> None:
    raw = (written(tmp_path, dtype) / "model.bin").read_bytes()
    version, torch_dtype = DTYPES[dtype]
    header = np.frombuffer(raw, np.int32, 256)
    assert header[:8].tolist() == [20240326, version, POSITIONS, VOCABULARY, LAYERS, HEADS, WIDTH, PADDED]
    assert not header[8:].any()
    state = {name: tensor.to(torch_dtype) for name, tensor in model().state_dict().items()}

    def stacked(name: str) -> torch.Tensor:
        return torch.stack([state[f"transformer.h.{layer}.{name}"] for layer in range(LAYERS)])

    def pair(name: str) -> list[torch.Tensor]:
        return [stacked(f"{name}.weight"), stacked(f"{name}.bias")]

    embedding = torch.zeros(PADDED, WIDTH, dtype=torch_dtype)
    embedding[:VOCABULARY] = state["transformer.wte.weight"]
    # The fields of ParameterTensors in llm.c's train_gpt2.c, in order.
    wte, wpe = [embedding], [state["transformer.wpe.weight"]]
    ln1, qkv, attproj = pair("ln_1"), pair("attn.c_attn"), pair("attn.c_proj")
    ln2, fc, fcproj = pair("ln_2"), pair("mlp.c_fc"), pair("mlp.c_proj")
    lnf = [state["transformer.ln_f.weight"], state["transformer.ln_f.bias"]]
    fields = [*wte, *wpe, *ln1, *qkv, *attproj, *ln2, *fc, *fcproj, *lnf]
    expected = np.concatenate([field.detach().contiguous().view(-1).view(torch.int16).numpy() for field in fields])
    assert np.array_equal(np.frombuffer(raw[1024:], np.int16), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_directory", [True, False])
def test_the_way_back_is_bitwise_equal(dtype: str, is_directory: bool, tmp_path: Path) -> None:
    source = written(tmp_path, dtype, "bpe:280")
    path = source if is_directory else source / "model.bin"
    assert llmc.matches(path)
    config, state = llmc.read(path)
    original = model().to(DTYPES[dtype][1]).state_dict()
    assert state.keys() == original.keys()
    assert all(state[name].dtype == original[name].dtype for name in original)
    assert all(torch.equal(state[name], original[name]) for name in original)
    for name in ("n_head", "n_positions", "vocab_size", "pre_norm"):
        assert getattr(config, name) == getattr(model().config, name)


@pytest.mark.parametrize("spec", ["bpe:280", "char"])
def test_the_token_table_decodes_to_the_bytes_of_the_text(spec: str, tmp_path: Path) -> None:
    raw = (written(tmp_path, spec=spec) / "gpt2_tokenizer.bin").read_bytes()
    magic, version, count, end = struct.unpack_from("<4i", raw)
    assert (magic, version) == (20240328, 2)
    tokens, at = [], 1024
    for _ in range(count):
        tokens.append(raw[at + 1 : at + 1 + raw[at]])
        at += 1 + raw[at]
    assert at == len(raw)
    assert tokens[end] == b"<|endoftext|>"
    tokenizer = train_tokenizer(spec, [TEXT * 9])
    assert len(tokens) == len(tokenizer)
    assert b"".join(tokens[id] for id in tokenizer.encode(TEXT)) == TEXT.encode()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"pre_norm": False}, "GPT-1"),
        ({"n_inner": 32}, "n_inner = 32"),
        ({"activation_function": "gelu"}, "activation_function = 'gelu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
    ],
)
def test_what_llmc_does_not_compute_is_refused(sizes: dict[str, Any], message: str) -> None:
    llmc.refuse(model(), None, "f32")
    with pytest.raises(InputError, match=message):
        llmc.refuse(model(**sizes), None, "f32")


def test_a_token_of_more_than_255_bytes_is_refused() -> None:
    tokenizer = train_tokenizer("bpe:280", [TEXT * 9])
    tokenizer.add_tokens(["x" * 256])
    with pytest.raises(InputError, match=r"token 280 has 256 bytes"):
        llmc.refuse(model(), tokenizer, "f32")


LARGEST = 2**31 - 1


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (1, 1, "version 1"),
        (1, -5, "version -5"),
        *((place, value, "at least 1") for place in (2, 3, 4, 5, 6) for value in (0, -1, -LARGEST)),
        (2, LARGEST, "the header describes"),
        (4, LARGEST, "the header describes"),
        (6, LARGEST - 3, "the header describes"),  # products beyond 64 bits
        (5, 3, "multiple of n_head"),
        (7, -1, "padded to -1"),
        (7, VOCABULARY - 1, "padded to 299"),
        (7, LARGEST, "the header describes"),
        (7, PADDED + 1, "the header describes"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_read(
    place: int, value: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path) / "model.bin"
    raw = bytearray(path.read_bytes())
    struct.pack_into("<i", raw, 4 * place, value)
    path.write_bytes(raw)
    monkeypatch.setattr(torch, "from_file", None)
    with pytest.raises(InputError, match=message) as refused:
        llmc.read(path)
    assert "\n" not in str(refused.value)
    assert "model.bin" in str(refused.value)


@pytest.mark.parametrize("change", [-1, 1, 1024 - 2**20])
def test_a_file_of_another_length_is_refused(change: int, tmp_path: Path) -> None:
    path = written(tmp_path) / "model.bin"
    raw = path.read_bytes()
    path.write_bytes(raw[:change] if -len(raw) < change < 0 else raw + b"\0" if change > 0 else raw[:1024])
    with pytest.raises(InputError, match="the header describes"):
        llmc.read(path)


def test_the_command_writes_and_reads_them(tmp_path: Path) -> None:
    save_model(model(), tmp_path / "source")
    steps = (("source", "there", "llm.c"), ("there", "back", "gptkit"), ("back", "one.bin", "llm.c"))
    for source, destination, to in steps:
        options = ConvertOptions(source=str(tmp_path / source), destination=tmp_path / destination, to=to)
        result = command.run(options, Console())
        assert result["max_logit_difference"] == 0
        assert result["greedy_equal"]
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("source", "back")]
    assert weights[0] == weights[1]
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "there" / "model.bin").read_bytes()


def test_a_directory_of_several_models_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path) / "model.bin"
    (tmp_path / "model_00000100.bin").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"2 models in this directory .*pass one of the files"):
        llmc.read(tmp_path)


def test_other_files_are_not_taken_for_llmcs(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(400)}, tmp_path / "pytorch_model.bin")
    assert not llmc.matches(tmp_path)
    assert not llmc.matches(tmp_path / "pytorch_model.bin")
    assert not llmc.matches(tmp_path / "nowhere")
    (tmp_path / "short.bin").write_bytes(struct.pack("<i", 20240326))
    assert not llmc.matches(tmp_path)
