"""GGUF: llama.cpp and transformers compute what we compute; it comes back bit for bit; hostile files are refused."""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AddedToken, PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.convert import command
from gptkit.convert import gguf as format
from gptkit.convert.options import ConvertOptions
from gptkit.convert.proof import UNUSUAL, Peer, compare, language_questions, observe, require
from gptkit.convert.torch_peer import own_peer
from gptkit.errors import GptkitError, InputError
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import save_model
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer

gguf = pytest.importorskip("gguf")

ENGLISH = "First Citizen: before we proceed any further, hear me speak. They've 1234 reasons, don't they?\n" * 20
CHINESE = "今天天气很好，我们去公园吧。他说：“明天会下雨吗？”\n" * 20
MIXED = f"{ENGLISH[:300]}{UNUSUAL}{CHINESE[:60]} a<|endoftext|>b [INST] <think>hm</think> [PAD3] <|begin|> <unk>"


def trained(text: str = ENGLISH, size: int = 320) -> PreTrainedTokenizerBase:
    return train_tokenizer(f"bpe:{size}", [text])


def with_added_tokens() -> PreTrainedTokenizerBase:
    tokenizer = trained()
    tokenizer.add_tokens(["<|begin|>", AddedToken("[INST]", special=True)], special_tokens=True)
    tokenizer.add_tokens(["<think>", "</think>", "Citizen"])
    tokenizer.add_special_tokens({"pad_token": "<pad>", "unk_token": "<unk>"})
    return tokenizer


def gpt2s_own() -> PreTrainedTokenizerBase:
    if "GPTKIT_TEST_DATA" not in os.environ:
        pytest.skip("GPTKIT_TEST_DATA is not set")
    return load_tokenizer(f"{os.environ['GPTKIT_TEST_DATA']}/tokenizers/gpt2")


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "English": trained,
    "Chinese": lambda: trained(CHINESE, 400),
    "added tokens": with_added_tokens,
    "GPT-2's own": gpt2s_own,
}


def small(vocab_size: int, **sizes: Any) -> GPTForCausalLM:
    torch.manual_seed(0)
    sizes = {"n_positions": 48, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.1, **sizes}
    model = GPTForCausalLM(GPTConfig(vocab_size=vocab_size, **sizes)).eval()
    for name, parameter in model.named_parameters():  # a fresh model's biases are zero and its scales one
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("ln" in name and "weight" in name), std=0.1)
    return model


def written(
    model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str = "f32"
) -> tuple[Path, str]:
    """Return the folder, and what was said."""
    told = io.StringIO()
    folder.mkdir()
    format.refuse(model, tokenizer, dtype)
    format.write(model, tokenizer, folder, dtype, Console(stdout=told, stderr=told, environment={}))
    return folder, told.getvalue()


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str = MIXED) -> list[int]:
    ids: list[int] = encode_pieces(tokenizer, [text])[0].tolist()
    return ids


def opened(folder: Path) -> Peer:
    pytest.importorskip("xllamacpp")
    return format.open_peer(folder)


# --- llama.cpp ---


@pytest.mark.parametrize("n_positions", [48, 1024])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_computes_what_we_compute(name: str, n_positions: int, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]()
    model = small(len(tokenizer), n_positions=n_positions)
    peer = opened(written(model, tokenizer, tmp_path / "out")[0])
    sizes = {"n_positions": n_positions, "vocab_size": len(tokenizer), "parameters": 10**6}
    questions = language_questions(ids_of(tokenizer), MIXED, **sizes)
    ours = observe(own_peer(model, tokenizer), questions, with_gaps=True)
    proof = compare(ours, observe(peer, questions), rounding=format.ROUNDING)
    require(proof, ours, "f32", where="here", rounding=format.ROUNDING)
    assert proof.tokenizer_ids_equal
    assert proof.greedy_equal
    assert proof.nll_difference == pytest.approx(0, abs=1e-4)


def test_only_gelu_is_rounded_by_llama_cpp(tmp_path: Path) -> None:
    """Its table of GELU has f16 numbers; without what the MLP adds, positions, attention and head agree to 1e-5."""
    tokenizer = trained()
    model = small(len(tokenizer), n_layer=4)
    for block in model.transformer.h:
        torch.nn.init.zeros_(block.mlp.c_proj.weight)
    peer, ids = opened(written(model, tokenizer, tmp_path / "out")[0]), ids_of(tokenizer)[:48]
    assert np.abs(peer.logits(ids) - own_peer(model, tokenizer).logits(ids)).max() < 1e-5


def test_large_weights_through_many_layers_are_no_fault(tmp_path: Path) -> None:
    """GELU's rounding then moves a logit by more than 2**-11 of the largest one."""
    tokenizer = trained()
    model, ids = small(len(tokenizer), n_layer=6, initializer_range=0.3), ids_of(tokenizer)
    questions = language_questions(ids, None, n_positions=48, vocab_size=len(tokenizer), parameters=10**6)
    ours = observe(own_peer(model, tokenizer), questions, with_gaps=True)
    peer = opened(written(model, tokenizer, tmp_path / "out")[0])
    proof = compare(ours, observe(peer, questions), rounding=format.ROUNDING)
    require(proof, ours, "f32", where="here", rounding=format.ROUNDING)


def test_rows_without_a_token_and_other_widths_and_heads_are_held(tmp_path: Path) -> None:
    tokenizer = trained()
    model = small(len(tokenizer) + 60, n_inner=96, tie_word_embeddings=False)
    folder, told = written(model, tokenizer, tmp_path / "out")
    assert "60 of the 380 embedding rows have no token" in told
    assert "gguf_file=NAME, n_positions=48, n_inner=96" in told
    peer, ids = opened(folder), ids_of(tokenizer)
    assert peer.encode(MIXED) == ids
    assert np.abs(peer.logits(ids[:48]) - own_peer(model, tokenizer).logits(ids[:48])).max() < 2e-3
    config, state = format.read(folder)
    assert (config.n_inner, config.tie_word_embeddings) == (96, False)
    assert torch.equal(state["lm_head.weight"], model.lm_head.weight)
    found = format.tokenizer(folder)
    assert found is not None
    assert len(found) == len(tokenizer)


def test_lesser_types_are_stored_as_llama_cpp_does_and_cost_little(tmp_path: Path) -> None:
    tokenizer = trained()
    model, ids = small(len(tokenizer)), ids_of(tokenizer)
    questions = language_questions(ids, None, n_positions=48, vocab_size=len(tokenizer), parameters=10**6)
    ours = observe(own_peer(model, tokenizer), questions, with_gaps=True)
    sizes = {}
    for dtype, head in zip(format.DTYPES, ("F32", "F16", "BF16", "Q8_0", "Q8_0"), strict=True):
        folder, _ = written(model, tokenizer, tmp_path / dtype, dtype)
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / format.FILE).tensors}
        assert tensors["token_embd.weight"].tensor_type.name == head
        assert tensors["blk.1.ffn_up.weight"].tensor_type.name == dtype.upper()
        for name in ("position_embd.weight", "blk.0.attn_qkv.bias", "output_norm.weight"):
            assert tensors[name].tensor_type.name == "F32"
        require(compare(ours, observe(opened(folder), questions)), ours, dtype, where="here", rounding=format.ROUNDING)
        sizes[dtype] = (folder / format.FILE).stat().st_size
    assert sizes["f32"] > sizes["f16"] == sizes["bf16"] > sizes["q8_0"] > sizes["q4_0"]


def test_a_fault_in_one_number_is_seen(tmp_path: Path) -> None:
    """What llama.cpp's rounding is allowed hides no wrong weight."""
    tokenizer = trained()
    model, ids = small(len(tokenizer)), ids_of(tokenizer)
    peer = opened(written(model, tokenizer, tmp_path / "out")[0])
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] += 0.1
    questions = language_questions(ids, None, n_positions=48, vocab_size=len(tokenizer), parameters=10**6)
    ours = observe(own_peer(model, tokenizer), questions, with_gaps=True)
    proof = compare(ours, observe(peer, questions), rounding=format.ROUNDING)
    with pytest.raises(GptkitError, match="logits differ"):
        require(proof, ours, "f32", where="here", rounding=format.ROUNDING)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_written(*_: Any) -> None:
        raise OSError("64 requested and 32 written")  # numpy's, without a number

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", half_written)
    with pytest.raises(OSError, match="No space left on device"):
        written(small(320), trained(), tmp_path / "out")


@pytest.mark.parametrize("difference", ["llama_gone", "n_seq_max"])
def test_another_llama_h_counts_as_not_installed(difference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp")
    from gptkit.convert import llama_cpp

    if difference == "n_seq_max":  # a field before the others moves them all
        fields = (("new", ctypes.c_int32), *llama_cpp._ContextParams._fields_)
        moved = type("Moved", (ctypes.Structure,), {"_fields_": fields})
        monkeypatch.setitem(llama_cpp._SIGNATURES, "llama_context_default_params", (moved,))
    else:
        monkeypatch.setitem(llama_cpp._SIGNATURES, difference, (None,))
    with pytest.raises(ImportError, match=r"the llama\.h of 2026\.10"):
        llama_cpp.LlamaCpp(Path("model.gguf"))


# --- transformers ---


@pytest.mark.parametrize("n_positions", [48, 1024])
@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_transformers_reads_it(n_positions: int, dtype: str, tmp_path: Path) -> None:
    tokenizer = with_added_tokens()
    model = small(len(tokenizer), n_positions=n_positions)
    folder, told = written(model, tokenizer, tmp_path / "out", dtype)
    assert ("n_positions=48" in told) == (n_positions == 48)  # transformers assumes 1024
    config, state = format.read(folder)
    ours = GPTForCausalLM(config).eval()
    ours.load_state_dict(state)
    peer, ids = format.open_source(folder, GPTForCausalLM, True), ids_of(tokenizer)
    assert peer.encode(MIXED) == ids
    assert np.abs(peer.logits(ids[:48]) - own_peer(ours, tokenizer).logits(ids[:48])).max() < 1e-5


# --- what does not fit ---


def char() -> PreTrainedTokenizerBase:
    return train_tokenizer("char", [ENGLISH])


@pytest.mark.parametrize(
    ("sizes", "tokenizer", "dtype", "message"),
    [
        ({"pre_norm": False}, trained, "f32", "post-norm"),
        ({"activation_function": "gelu"}, trained, "f32", "activation_function 'gelu'"),
        ({}, char, "f32", "WordLevel"),
        ({}, lambda: trained(size=257), "f32", "without merges"),
        ({}, lambda: None, "f32", "--tokenizer"),
        ({"n_embd": 48}, trained, "q8_0", "n_embd is 48"),
        ({"n_inner": 80}, trained, "q4_0", "n_inner is 80"),
    ],
)
def test_what_does_not_fit_is_refused(
    sizes: dict[str, Any], tokenizer: Callable[[], PreTrainedTokenizerBase], dtype: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        format.refuse(small(320, **sizes), tokenizer(), dtype)


def test_a_token_that_llama_cpp_recognizes_in_any_text_is_named(tmp_path: Path) -> None:
    tokenizer = trained()
    tokenizer.add_tokens(["<|start|>"], special_tokens=True)
    assert "llama.cpp takes <|start|>" in written(small(330), tokenizer, tmp_path / "out")[1]


@pytest.mark.parametrize("option", ["lstrip", "rstrip", "single_word"])
def test_a_token_that_takes_in_its_neighbours_is_refused(option: str) -> None:
    tokenizer = trained()
    tokenizer.add_tokens([AddedToken("<mask>", **{option: True})])
    with pytest.raises(InputError, match="'<mask>' takes in"):
        format.refuse(small(330), tokenizer, "f32")


def test_the_modelfile_continues_the_prompt_in_the_whole_context(tmp_path: Path) -> None:
    folder, _ = written(small(320), trained(), tmp_path / "out")
    lines = (folder / "Modelfile").read_text().splitlines()
    assert lines[2:] == ["FROM ./model.gguf", 'TEMPLATE "{{ .Prompt }}"', "PARAMETER num_ctx 48"]


# --- there and back ---


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_there_and_back_is_bitwise_equal(stored: torch.dtype, name: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]()
    model = small(len(tokenizer), n_embd=32).to(stored)
    dtype = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[stored]
    folder, _ = written(model, tokenizer, tmp_path / "out", dtype)
    config, state = format.read(folder)
    assert state.keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert state[key].dtype == stored
        assert torch.equal(state[key], tensor)
    for key in ("n_positions", "n_embd", "n_layer", "n_head", "n_inner", "layer_norm_epsilon", "tie_word_embeddings"):
        assert getattr(config, key) == getattr(model.config, key)
    found = format.tokenizer(folder)
    assert found is not None
    assert found.get_vocab() == tokenizer.get_vocab()
    assert found.eos_token_id == config.eos_token_id == tokenizer.eos_token_id
    assert (found.pad_token, found.unk_token) == (tokenizer.pad_token, tokenizer.unk_token)
    assert ids_of(found) == ids_of(tokenizer)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0", "q4_0"])
def test_a_lesser_type_comes_back_as_it_was_cast(dtype: str, tmp_path: Path) -> None:
    """To the bit, in f32: the norms beside the matrices stay f32, and quantized numbers are gguf's own."""
    tokenizer = trained()
    model = small(len(tokenizer))
    folder, _ = written(model, tokenizer, tmp_path / "out", dtype)
    _, state = format.read(folder)
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    for name, tensor in model.state_dict().items():
        expected = tensor
        if tensor.ndim == 2 and "wpe" not in name:
            is_head = tensor.shape[0] == len(tokenizer)
            stored = gguf.GGMLQuantizationType.Q8_0 if dtype == "q4_0" and is_head else kind
            expected = torch.from_numpy(gguf.dequantize(gguf.quantize(tensor.numpy(), stored), stored))
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], expected), name


def test_transformers_holds_16_bit_weights_in_16_bits(tmp_path: Path) -> None:
    tokenizer = trained()
    model = small(len(tokenizer)).to(torch.bfloat16)
    folder, _ = written(model, tokenizer, tmp_path / "out", "bf16")
    peer: Any = format.open_source(folder, GPTForCausalLM, False)
    ids = ids_of(tokenizer)[:48]
    assert np.abs(peer.logits(ids) - own_peer(model, tokenizer).logits(ids)).max() < 1e-4
    assert {parameter.dtype for parameter in peer._model.transformer.h.parameters()} == {torch.bfloat16}


def test_the_command_proves_an_export_and_an_import(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model, tokenizer = small(330), trained()
    save_model(model, tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    console = Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={})

    def converted(source: Path, destination: Path, to: str) -> dict[str, Any]:
        return command.run(ConvertOptions(source=str(source), destination=destination, to=to), console)

    there = converted(tmp_path / "model", tmp_path / "there.gguf", "gguf")
    assert there["peer"].startswith("llama.cpp (xllamacpp) ")
    back = converted(tmp_path / "there.gguf", tmp_path / "back", "gptkit")
    assert back["peer"].startswith("transformers ")
    for proof in (there, back):
        assert proof["tokenizer_ids_equal"]
        assert proof["greedy_equal"]
    assert back["max_logit_difference"] < 1e-4
    weights = "model.safetensors"
    assert (tmp_path / "back" / weights).read_bytes() == (tmp_path / "model" / weights).read_bytes()
    assert load_tokenizer(str(tmp_path / "back")).get_vocab() == tokenizer.get_vocab()


# --- files that others wrote ---


def foreign(path: Path, model: GPTForCausalLM, *, tied_twice: bool = True, tokens: bool = False) -> Path:
    """Write the least that makes a GPT-2, in another order, with another alignment and kind of integer."""
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_custom_alignment(64)
    writer.add_uint64("gpt2.attention.head_count", model.config.n_head)
    writer.add_array("general.tags", ["a", "b"])
    if tokens:
        tokenizer = trained()
        entries = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
        merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(entries)
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_eos_token_id(tokenizer.eos_token_id)
    for name, tensor in reversed(model.state_dict().items()):
        if name != "lm_head.weight":
            writer.add_tensor(format._their_name(name), tensor.numpy())
    if tied_twice:
        writer.add_tensor("output.weight", model.transformer.wte.weight.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied_twice", [True, False])
def test_a_file_of_another_layout_without_optional_keys_is_read(tied_twice: bool, tmp_path: Path) -> None:
    model = small(320, n_inner=96)
    path = foreign(tmp_path / "theirs.gguf", model, tied_twice=tied_twice, tokens=True)
    config, state = format.read(path)
    sizes = (config.n_positions, config.n_embd, config.n_layer, config.n_head, config.n_inner, config.vocab_size)
    assert sizes == (48, 64, 2, 4, 96, 320)
    assert config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor)
    tokenizer = format.tokenizer(path)
    assert tokenizer is not None
    assert ids_of(tokenizer) == ids_of(trained())


def test_a_file_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    path = foreign(tmp_path / "theirs.gguf", small(320))
    assert format.tokenizer(path) is None
    (tmp_path / "more.gguf").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"more\.gguf, theirs\.gguf"):
        format.read(tmp_path)


# --- hostile files ---

NAME, U8, U32, F32, STRING, ARRAY = b"general.name", 0, 4, 6, 8, 9
HUGE = 1 << 62


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header(*pairs: bytes, tensors: int = 0, pair_count: int | None = None, version: int = 3) -> bytes:
    counts = tensors, len(pairs) if pair_count is None else pair_count
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs)


def pair(kind: int, value: bytes, name: bytes = NAME) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def row(name: bytes = b"a", sizes: tuple[int, ...] = (32, 2), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


GPT2 = pair(STRING, text(b"gpt2"), b"general.architecture")
DATA = bytes(4096)
HOSTILE = {
    "empty": (b"", "not there"),
    "another format": (b"PK\x03\x04" + DATA, "not a GGUF file"),
    "version 1": (header(version=1), "version 1"),
    "big-endian": (header(version=3 << 24), "version"),
    "no pairs": (header(pair_count=HUGE), "not there"),
    "no tensors": (header(tensors=HUGE), "not there"),
    "a string of an exabyte": (header(pair(STRING, struct.pack("<Q", HUGE))) + DATA, "4,611,686,018,427,387,904 bytes"),
    "an array of an exabyte": (header(pair(ARRAY, struct.pack("<IQ", U8, HUGE))) + DATA, "not there"),
    "an array of strings": (header(pair(ARRAY, struct.pack("<IQ", STRING, HUGE))) + DATA, "not there"),
    "an array of arrays": (header(pair(ARRAY, struct.pack("<IQ", ARRAY, 1))) + DATA, "array of type 9"),
    "an unknown type": (header(pair(99, DATA)), "unknown type 99"),
    "not UTF-8": (header(pair(STRING, text(b"\xff"))), "not UTF-8"),
    "a key twice": (header(*[pair(U32, bytes(4))] * 2), "duplicate key"),
    "a tensor twice": (header(tensors=2) + row() * 2 + DATA, "duplicate tensor"),
    "no dimension": (header(tensors=1) + row(sizes=()) + DATA, "0 dimensions"),
    "many dimensions": (header(tensors=1) + row(sizes=(1,) * 9) + DATA, "9 dimensions"),
    "a dimension of zero": (header(tensors=1) + row(sizes=(32, 0)) + DATA, "rows of"),
    "half a block": (header(tensors=1) + row(sizes=(33, 2), kind=8) + DATA, "rows of 33"),
    "sizes whose product overflows": (header(tensors=1) + row(sizes=(1 << 32, 1 << 32)) + DATA, "within the file"),
    "a negative offset": (header(tensors=1) + row(offset=(1 << 64) - 32) + DATA, "within the file"),
    "an odd offset": (header(tensors=1) + row(offset=1) + DATA, "within the file"),
    "tensors on one another": (header(tensors=2) + row(sizes=(1536,)) + row(b"b", (1536,)) + 2 * DATA, "overlaps"),
    "an unknown tensor type": (header(tensors=1) + row(kind=77) + DATA, "unknown ggml type, 77"),
    "no alignment": (header(pair(U32, bytes(4), b"general.alignment")), "power of two"),
    "another architecture": (header(pair(STRING, text(b"llama"), b"general.architecture")), "architecture 'llama'"),
    "several architectures": (
        header(pair(ARRAY, struct.pack("<IQ2I", U32, 2, 1, 2), b"general.architecture")),
        r"architecture \[1, 2\]",
    ),
    "several parts": (header(GPT2, pair(ARRAY, struct.pack("<IQ2I", U32, 2, 1, 1), b"split.count")), "parts of a"),
    "a type of architecture": (header(pair(U32, bytes(4), b"general.architecture")), "architecture 0"),
    "a part": (header(GPT2, pair(U32, struct.pack("<I", 3), b"split.count")), "3 parts"),
    "another quantization": (header(GPT2, tensors=1) + row(sizes=(256,), kind=14) + DATA, "Q6_K"),
    "nothing in it": (header(GPT2), "no matrix token_embd"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, message = HOSTILE[name]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (format.read, format.tokenizer):
        if read is format.read or name != "nothing in it":
            with pytest.raises(InputError, match=message) as caught:
                read(path)
            assert len(str(caught.value)) < 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


METADATA = [
    ({"gpt2.attention.head_count": 3}, "multiple of n_head"),
    ({"gpt2.attention.head_count": "4"}, "has the type str"),
    ({"gpt2.attention.head_count": None}, "number of heads"),
    ({"gpt2.block_count": 1 << 31}, "n_layer is 2,147,483,648"),
    ({"gpt2.context_length": 1 << 31}, "position_embd|wpe"),
    ({"gpt2.embedding_length": True}, "has the type bool"),
    ({"gpt2.attention.layer_norm_epsilon": 0.0}, "must be positive"),
    ({"tokenizer.ggml.eos_token_id": 320}, "outside the vocabulary"),
    ({"tokenizer.ggml.pre": "llama-bpe"}, "pre-tokenizer 'llama-bpe'"),
    ({"tokenizer.ggml.model": "llama"}, "'llama'"),
    ({"tokenizer.ggml.model": [1, 2]}, r"\[1, 2\]"),
    ({"tokenizer.ggml.eos_token_id": None}, "no token that ends"),
    ({"tokenizer.ggml.tokens": ["a"] * 320}, "a token twice"),
    ({"tokenizer.ggml.tokens": ["a", "b"]}, "do not match"),
    ({"tokenizer.ggml.token_type": 1}, "do not match"),
    ({"tokenizer.ggml.merges": ["a b c"]}, "pair"),
    ({"tokenizer.ggml.merges": ["no such"]}, "do not match"),
    ({"tokenizer.ggml.merges": None}, "pair"),
]


@pytest.mark.parametrize(("changes", "message"), METADATA)
def test_metadata_that_cannot_be_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder, _ = written(small(320), trained(), tmp_path / "out")
    path = rewritten(folder / format.FILE, changes)
    read = format.tokenizer if "tokenizer" in next(iter(changes)) and "vocabulary" not in message else format.read
    with pytest.raises(InputError, match=message):
        read(path)


def rewritten(path: Path, changes: dict[str, Any]) -> Path:
    """Write a GGUF file again with other metadata; None removes a key."""
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")} | changes
    writer = gguf.GGUFWriter(path.with_name("changed.gguf"), "gpt2")
    for name, value in values.items():
        if name == "general.architecture" or value is None:
            continue
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            kind = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}[type(value)]
            writer.add_key_value(name, value, gguf.GGUFValueType[kind])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("changed.gguf")


def test_a_tokenizer_of_ones_own_takes_the_place_of_one_that_splits_otherwise(tmp_path: Path) -> None:
    folder, _ = written(small(320), trained(), tmp_path / "out")
    path = rewritten(folder / format.FILE, {"tokenizer.ggml.pre": "llama-bpe"})
    trained().save_pretrained(tmp_path / "own")
    console = Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={})
    options = ConvertOptions(source=str(path), destination=tmp_path / "back", tokenizer=str(tmp_path / "own"))
    assert command.run(options, console)["max_logit_difference"] < 1e-4


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    folder, _ = written(small(320, n_embd=32, n_layer=1), trained(), tmp_path / "out")
    data = (folder / format.FILE).read_bytes()
    path = tmp_path / "cut.gguf"
    for length in np.linspace(0, len(data) - 64, 60).astype(int):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            format.read(path)


def test_a_damaged_byte_raises_no_other_error(tmp_path: Path) -> None:
    folder, _ = written(small(320, n_embd=32, n_layer=1), trained(), tmp_path / "out")
    data = bytearray((folder / format.FILE).read_bytes())
    path, random = tmp_path / "flipped.gguf", np.random.default_rng(0)
    for place in random.integers(0, 12_000, 200):  # of the header
        before, data[place] = data[place], data[place] ^ (1 << int(random.integers(8)))
        path.write_bytes(data)
        data[place] = before
        with suppress(InputError):
            format.read(path)
            format.tokenizer(path)
