"""The native engine against the model in torch: logits, batches, windows, quantized weights."""

from __future__ import annotations

import os
import platform
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_toy import FAMILIES, SIZES, toy
from gptkit.decoding.engines import NativeUnavailableError, Piece
from gptkit.decoding.native import library
from gptkit.decoding.native.engine import CACHED, NativeEngine, WeightFormat, available_processors, to_float
from gptkit.decoding.quantization import quantize_int4, quantize_int8
from gptkit.decoding.text_options import Precision
from gptkit.errors import GptkitError, InputError
from gptkit.model.modeling_gpt import GPTForCausalLM

FORMATS: list[WeightFormat] = ["fp32", "bf16", "int8", "int4"]
ARITHMETICS: list[dict[str, Any]] = [
    *({"weight_format": name} for name in FORMATS),
    *({"weight_format": name, "precision": "int8"} for name in ("int8", "int4")),
]
SHAPES: list[dict[str, Any]] = [
    {},
    {"n_embd": 20, "n_head": 2, "n_inner": 37},  # nothing is a multiple of anything
    {"n_embd": 160, "n_head": 2, "n_layer": 1, "vocab_size": 131},  # heads of 80, more than one int4 block
    {"activation_function": "gelu"},
    {"tie_word_embeddings": False},
]


def native(model: GPTForCausalLM, **more: Any) -> NativeEngine:
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    return NativeEngine(model.config, weights, **more)


def prompts(vocab_size: int, lengths: list[int], seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, vocab_size, length).tolist() for length in lengths]


def token_by_token(engine: NativeEngine, ids: list[int], row: int = 0) -> np.ndarray:
    """Return the logits after each token, (tokens, vocab)."""
    return np.concatenate([engine.forward([Piece(row, at, [one])]) for at, one in enumerate(ids)])


def compile_anew(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Use another cache, and a compiler without optimization, which takes a third of the time."""
    monkeypatch.setenv("GPTKIT_CACHE", str(cache))
    monkeypatch.setattr(library, "FLAGS", ("-O0", *library.FLAGS[1:]))


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_logits_are_the_models(pre_norm: bool, changes: dict[str, Any]) -> None:
    model = toy(pre_norm, **changes)
    (ids,) = prompts(model.config.vocab_size, [24])
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    engine = native(model)
    engine.open(1, 24)
    np.testing.assert_allclose(token_by_token(engine, ids), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_a_piece_gives_the_logits_of_as_many_of_its_last_tokens_as_are_wanted(pre_norm: bool) -> None:
    """In one call and over several: the rows take more than MOST_TOKENS."""
    engine = native(toy(pre_norm, n_positions=400))
    rows = prompts(SIZES["vocab_size"], [300, 5, 120, 9])
    engine.open(len(rows), 400)
    single = [token_by_token(engine, ids, row) for row, ids in enumerate(rows)]
    wanted = [290, 5, 0, 1]
    pieces = [Piece(row, 0, ids, count) for row, (ids, count) in enumerate(zip(rows, wanted, strict=True))]
    expected = [logits[len(logits) - count :] for logits, count in zip(single, wanted, strict=True)]
    np.testing.assert_array_equal(engine.forward(pieces), np.concatenate(expected))


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_row_is_the_same_bits_in_any_batch_and_however_its_prompt_is_cut(arithmetic: dict[str, Any]) -> None:
    check_bits(arithmetic)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names the processors of another kind")
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_row_is_the_same_bits_on_avx2(
    arithmetic: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optimized: GCC once fused a product and a sum in one copy of the code for AVX2, not in the other."""
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", shlex.join([*(library.find_c_compiler() or ()), "-mno-avx512f", "-mno-avxvnni"]))
    check_bits(arithmetic)


def check_bits(arithmetic: dict[str, Any]) -> None:
    model = toy(n_embd=160, n_head=2, vocab_size=131)
    rows = prompts(131, [1, 17, 9, 22, 5, 2, 13])
    engine = native(model, **arithmetic)
    alone = []
    for ids in rows:
        engine.open(1, 24)
        alone.append(token_by_token(engine, ids)[-1])
    engine.open(7, 24)
    together = engine.forward([Piece(row, 0, ids) for row, ids in enumerate(rows)])
    np.testing.assert_array_equal(together, np.stack(alone))
    engine.open(7, 24)
    engine.forward([Piece(row, 0, ids[:-1]) for row, ids in enumerate(rows) if ids[:-1]])
    last = engine.forward([Piece(row, len(ids) - 1, ids[-1:]) for row, ids in enumerate(rows)])
    np.testing.assert_array_equal(last, together)


def test_a_window_may_begin_anew_while_other_rows_go_on() -> None:
    engine = native(toy())
    first, second, third = prompts(61, [20, 8, 10])
    engine.open(2, 24)
    engine.forward([Piece(0, 0, first), Piece(1, 0, second)])
    mixed = engine.forward([Piece(1, 8, [3]), Piece(0, 0, third)])
    engine.open(1, 24)
    np.testing.assert_array_equal(mixed[0], engine.forward([Piece(0, 0, [*second, 3])])[0])
    np.testing.assert_array_equal(mixed[1], engine.forward([Piece(0, 0, third)])[0])


def test_calls_longer_than_the_buffers_are_cut() -> None:
    model = toy(n_positions=600)
    rows = prompts(61, [600, 3, 511])
    with torch.inference_mode():
        expected = np.stack([model(torch.tensor([ids])).logits[0, -1].numpy() for ids in rows])
    engine = native(model)
    engine.open(3, 600)
    found = engine.forward([Piece(row, 0, ids) for row, ids in enumerate(rows)])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("length", [1, 3, 24])
def test_bf16_activations_stay_near(weight_format: WeightFormat, length: int) -> None:
    model = toy(n_embd=160, n_head=2, vocab_size=131)
    rows = prompts(131, [length] * 6)
    results = []
    for precision in ("fp32", "bf16"):
        engine = native(model, weight_format=weight_format, precision=precision)
        engine.open(6, 24)
        results.append(engine.forward([Piece(row, 0, ids) for row, ids in enumerate(rows)]))
    exact, rounded = results
    assert np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()
    assert (rounded != exact).any()


def test_weights_are_quantized_by_the_same_rule_as_in_torch() -> None:
    """The matrices that the C code quantized and unpacked, against torch's codes and scales."""
    weight = torch.randn(61, 160, generator=torch.Generator().manual_seed(0)) * 0.1
    weight[3] = 0
    weight[5, 32:64] = 0
    for weight_format, quantize in (("int8", quantize_int8), ("int4", quantize_int4)):
        codes, scales = quantize(weight)
        if weight_format == "int8":
            expected = codes.float() * scales[:, None]
        else:
            expected = ((codes.float() - 8).unflatten(1, (-1, 32)) * scales.float()[..., None]).flatten(1)
        np.testing.assert_allclose(unpacked(weight, weight_format), expected.numpy(), rtol=1e-6)


def unpacked(weight: torch.Tensor, weight_format: str) -> np.ndarray:
    """Return the weights (61, 160) that the engine multiplies with, read off an LM head fed with unit vectors."""
    model = toy(n_embd=160, n_head=2, n_layer=1, tie_word_embeddings=False)
    state = model.state_dict()
    for name, tensor in state.items():
        if not name.startswith(("lm_head", "transformer.ln_f")):
            tensor.zero_()
    state["transformer.ln_f.weight"].zero_()
    state["lm_head.weight"].copy_(weight)
    columns = []
    for column in range(160):
        state["transformer.ln_f.bias"].zero_()[column] = 1
        engine = native(model, weight_format=weight_format)
        engine.open(1, 16)
        columns.append(engine.forward([Piece(0, 0, [0])])[0])
    return np.stack(columns, axis=1)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names the processors of another kind")
@pytest.mark.parametrize("flag", ["-march=x86-64-v2", "-mno-avx2", "-mno-avx512f", "-mno-avx512vnni"])
def test_older_processors_compute_the_same(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code for processors without AVX-512 or its dot products gives the same results.

    With activations in 8 bits, sums in another order may round to another code.
    """
    model = toy(n_embd=160, n_head=2, vocab_size=131)
    (ids,) = prompts(131, [20])
    expected = logits_in_all_formats(model, ids)
    compile_anew(monkeypatch, tmp_path)
    library.native_library("fp32", "fp32")
    monkeypatch.setenv("CC", shlex.join([*(library.find_c_compiler() or ()), flag]))
    assert library.native_library("fp32", "fp32")[1] > 0  # not the library compiled with other flags
    found = logits_in_all_formats(model, ids)
    largest = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    assert (largest < [4e-2 if "precision" in arithmetic else 1e-4 for arithmetic in ARITHMETICS * 2]).all(), largest


def logits_in_all_formats(model: GPTForCausalLM, ids: list[int]) -> np.ndarray:
    engines = [native(model, **arithmetic) for arithmetic in ARITHMETICS]
    for engine in engines:
        engine.open(1, 24)
    one_by_one = [token_by_token(engine, ids)[-1] for engine in engines]
    together = [engine.forward([Piece(0, 0, ids)])[0] for engine in engines]
    return np.stack([*one_by_one, *together])


@pytest.mark.parametrize("precision", CACHED)
@pytest.mark.parametrize("changes", [{}, {"n_embd": 20, "n_head": 2}])  # heads of 8 and 10, padded to 16
def test_cache_bytes_are_those_of_the_cache(changes: dict[str, Any], precision: Precision) -> None:
    """Scales and padding included: all that `open` allocates more of for more rows, except for buffers."""
    engine = native(toy(**changes), weight_format="int8", precision=precision)
    engine.open(3, 21)
    cache = engine._cache
    pointers = [cache.keys, cache.values, cache.key_scales, cache.value_scales]
    allocated = {array.ctypes.data: array.nbytes for array in engine._opened}
    assert sum(allocated[pointer] for pointer in pointers) == 3 * engine.cache_bytes(21)


def test_bf16_weights_are_read_as_bits() -> None:
    model = toy()
    halves = {name: tensor.bfloat16().view(torch.uint16).numpy() for name, tensor in model.state_dict().items()}
    engine = NativeEngine(model.config, halves, weight_format="bf16")
    rounded = {name: to_float(bits) for name, bits in halves.items()}
    reference = NativeEngine(model.config, rounded)
    (ids,) = prompts(61, [20])
    for one in (engine, reference):
        one.open(1, 24)
    np.testing.assert_array_equal(engine.forward([Piece(0, 0, ids)]), reference.forward([Piece(0, 0, ids)]))


def test_the_compiled_library_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_anew(monkeypatch, tmp_path)
    assert library.native_library("fp32", "fp32")[1] > 0
    assert library.native_library("fp32", "fp32")[1] == 0


def test_fewer_threads_than_asked_for_compute_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler without OpenMP stands in for a system that grants only one thread."""
    model = toy()
    (ids,) = prompts(61, [20])
    engine = native(model, threads=1)
    engine.open(1, 24)
    expected = engine.forward([Piece(0, 0, ids)])
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    compile_anew(monkeypatch, tmp_path / "cache")
    engine = native(model, threads=4)
    engine.open(1, 24)
    np.testing.assert_allclose(engine.forward([Piece(0, 0, ids)]), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("1,8", 1), ("100000", 0), ("", 0), ("many", 0)])
def test_threads_are_the_processors_at_most(asked: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert available_processors() == (threads or 3)


def test_without_a_usable_cache_it_is_compiled_for_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    compile_anew(monkeypatch, tmp_path / "file" / "cache")
    engine = native(toy())
    engine.open(1, 24)
    assert engine.compile_seconds > 0
    assert np.isfinite(engine.forward([Piece(0, 0, [1])])).all()


@pytest.mark.parametrize(("chosen", "reason"), [("'cc", "CC cannot be parsed"), ("true", "wrote nothing")])
def test_odd_compilers_are_named(chosen: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", chosen)
    with pytest.raises(NativeUnavailableError, match=reason):
        library.native_library("fp32", "fp32")


def test_without_a_working_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(NativeUnavailableError, match="no C compiler"):
        library.native_library("fp32", "fp32")
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'error: out of ideas' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(NativeUnavailableError, match="out of ideas"):
        library.native_library("fp32", "fp32")
    assert not issubclass(NativeUnavailableError, GptkitError)  # generation falls back to torch


# NaN, an infinity, and what a file that is full of ones holds: rounding the last to bf16 carries into its sign.
DAMAGED = [0x7FC00000, 0x7F800000, 0xFF800000, 0xFFFFFFFF]


@pytest.mark.parametrize("bits", DAMAGED)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_nan_or_infinity_in_any_tensor_reaches_the_logits_or_is_refused(
    weight_format: WeightFormat, precision: Precision, bits: int
) -> None:
    model = toy(tie_word_embeddings=False)
    whole = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    for name, weight in whole.items():
        damaged = weight.copy()
        damaged[(5,) * damaged.ndim] = np.array(bits, np.uint32).view(np.float32)
        weights = whole | {name: damaged}
        arithmetic: dict[str, Any] = {"weight_format": weight_format, "precision": precision, "threads": 1}
        is_table = name.startswith("transformer.w")
        if damaged.ndim == 1 or (weight_format in ("int8", "int4") and not is_table):
            with pytest.raises(InputError, match=f"^tensor {name} is not finite"):
                NativeEngine(model.config, weights, **arithmetic)
        else:
            engine = NativeEngine(model.config, weights, **arithmetic)
            engine.open(1, 6)
            assert not np.isfinite(engine.forward([Piece(0, 0, [5] * 6)])).all(), name
