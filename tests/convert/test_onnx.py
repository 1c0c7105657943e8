"""ONNX: onnxruntime computes what our model computes, at every length, batch, padding and split of the cache."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from gptkit.console import Console
from gptkit.convert import command, onnx
from gptkit.convert.options import ConvertOptions
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import save_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.kinds import train_tokenizer

POSITIONS, VOCABULARY = 12, 300
SIZES = {"vocab_size": VOCABULARY, "n_positions": POSITIONS, "n_embd": 16, "n_layer": 2, "n_head": 2}
MODELS = {
    "gpt2": {},
    "gpt1": {"pre_norm": False},
    "unusual": {"tie_word_embeddings": False, "n_inner": 24, "activation_function": "gelu", "layer_norm_epsilon": 1e-6},
}


def language_model(**sizes: Any) -> GPTForCausalLM:
    torch.manual_seed(0)
    return with_random_biases(GPTForCausalLM(GPTConfig(**SIZES | sizes, initializer_range=0.2)))


def with_random_biases(model: Any) -> Any:
    """New ones are all equal, and equal tensors could be confused."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def exported(model: Any, folder: Path, dtype: str = "f32", tokenizer: Any = None) -> onnx.OnnxPeer:
    onnx.write(model, tokenizer, folder, dtype, Console())
    return onnx.open_peer(folder)


@torch.inference_mode()
def expected(model: Any, ids: NDArray[Any]) -> NDArray[Any]:
    logits: NDArray[Any] = model(input_ids=torch.from_numpy(ids)).logits.numpy()
    return logits


def random_ids(*shape: int) -> NDArray[np.int64]:
    return np.random.default_rng(sum(shape)).integers(VOCABULARY, size=shape)


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_computes_our_logits(name: str, tmp_path: Path) -> None:
    model = language_model(**MODELS[name])
    peer = exported(model, tmp_path)
    for batch in (1, 3):
        for length in (1, 2, 7, POSITIONS):
            ids = random_ids(batch, length)
            whole = expected(model, ids)
            logits, _ = peer.step(ids, np.ones_like(ids))
            np.testing.assert_allclose(logits, whole, atol=1e-5)
            for cut in {1, length - 1} - {0, length}:  # with a cache of all but the last token, and of the first alone
                first, past = peer.step(ids[:, :cut], np.ones_like(ids[:, :cut]))
                rest, _ = peer.step(ids[:, cut:], np.ones_like(ids), past)
                np.testing.assert_allclose(np.concatenate((first, rest), 1), whole, atol=1e-5)


def test_padding_on_either_side_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model()
    peer = exported(model, tmp_path, tokenizer=train_tokenizer("bpe:280", ["hear me speak, hear me speak. " * 9]))
    assert run_card(tmp_path, monkeypatch)["logits"].shape[::2] == (2, VOCABULARY)
    lengths, longest = (2, 9, 5), 9
    left, mask = random_ids(3, longest), np.zeros((3, longest), np.int64)
    for row, length in enumerate(lengths):
        mask[row, longest - length :] = 1
    logits, past = peer.step(left, mask)
    chosen = logits[:, -1:].argmax(2)
    after, _ = peer.step(chosen, np.concatenate((mask, np.ones_like(chosen)), 1), past)
    right, _ = peer.step(left[:, ::-1].copy(), mask[:, ::-1].copy())
    for row, length in enumerate(lengths):
        ids = left[row : row + 1, longest - length :]
        np.testing.assert_allclose(logits[row : row + 1, longest - length :], expected(model, ids), atol=1e-5)
        continued = np.concatenate((ids, chosen[row : row + 1]), 1)
        np.testing.assert_allclose(after[row, 0], expected(model, continued)[0, -1], atol=1e-5)
        np.testing.assert_allclose(right[row : row + 1, :length], expected(model, ids[:, ::-1].copy()), atol=1e-5)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(("dtype", "most", "bytes_each"), [("f16", 0.01, 2), ("int8", 0.2, 1)])
def test_a_lesser_dtype_is_close_and_small(dtype: str, most: float, bytes_each: int, tmp_path: Path) -> None:
    model = language_model(n_embd=128, n_layer=1)
    peer = exported(model, tmp_path, dtype)
    ids = random_ids(3, POSITIONS)
    logits, _ = peer.step(ids, np.ones_like(ids))
    assert logits.dtype == np.float32
    assert 0 < np.abs(logits - expected(model, ids)).max() < most * np.abs(logits).max()
    size = (tmp_path / "model.onnx_data").stat().st_size
    assert size == pytest.approx(bytes_each * model.num_parameters(), rel=0.05)


def test_int8_matrices_are_those_of_onnxruntimes_dynamic_quantization(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for dtype in ("f32", "int8"):
        (tmp_path / dtype).mkdir()
        exported(language_model(tie_word_embeddings=False, n_layer=1), tmp_path / dtype, dtype)
    theirs_options = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    quantize_dynamic(tmp_path / "f32" / "model.onnx", tmp_path / "theirs.onnx", **theirs_options)
    theirs, ours = (weights_in(path) for path in (tmp_path / "theirs.onnx", tmp_path / "int8" / "model.onnx"))
    names = [name for name in ours if "transformer.h." in name and name.endswith(("_quantized", "_scale"))]
    assert len(names) == 2 * 4
    for name in [*names, "model.lm_head.weight_quantized"]:
        np.testing.assert_array_equal(ours[name], theirs[name])


def weights_in(path: Path) -> dict[str, NDArray[Any]]:
    graph = onnx_ir.load(path).graph
    return {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}


HEADS = [  # format, outputs, sequences of an example, shape of the logits that the card's code computes
    ("classification", 3, 1, (2, 3)),
    ("classification", 1, 1, (2, 1)),  # a score
    ("entailment", 2, 1, (1, 2)),
    ("similarity", 1, 2, (1, 1)),
    ("similarity", 2, 2, (1, 2)),
    ("multiple-choice", 1, 3, (1, 2)),
]
HEADS = [(*row, "extract") for row in HEADS] + [(*row, "concat") for row in HEADS if row[2] > 1 and row[1] == 1]


@pytest.mark.parametrize(("format", "outputs", "sequences", "shape", "pooling"), HEADS)
def test_a_classifier_answers_as_ours_does(
    format: str,
    outputs: int,
    sequences: int,
    shape: tuple[int, ...],
    pooling: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = train_tokenizer("bpe:280", ["hear me speak, hear me speak. " * 9])
    start, delimiter, extract = (len(tokenizer) + number for number in range(3))
    markers = {"start_token_id": start, "delimiter_token_id": delimiter, "extract_token_id": extract}
    head = {"task": "mine", "format": format, "id2label": {number: f"label {number}" for number in range(outputs)}}
    torch.manual_seed(0)
    sizes = SIZES | {"pre_norm": format != "entailment", "n_positions": 40, "n_layer": 1, "head": pooling}
    model = with_random_biases(GPTDoubleHeadsModel(GPTConfig(**sizes, **markers, **head, initializer_range=0.2)))
    onnx.refuse(model, tokenizer, "f32")
    peer = exported(model, tmp_path, tokenizer=tokenizer)
    for batch, longest in ((1, 1), (3, 7), (3, 40)):
        lengths = np.random.default_rng(longest).integers(1, longest + 1, size=(batch, sequences))
        lengths[0] = longest
        mask = (np.arange(longest) < lengths[..., None]).astype(np.int64)  # (batch, sequence, length)
        ids = random_ids(*mask.shape)
        with torch.inference_mode():
            answers = model(torch.from_numpy(ids), torch.from_numpy(lengths - 1)).logits.numpy().reshape(batch, -1)
        padding_first = np.argsort(mask, axis=2, kind="stable")
        for order in (np.argsort(-mask, axis=2, kind="stable"), padding_first):
            given = {
                "input_ids": np.take_along_axis(ids, order, 2),
                "attention_mask": np.take_along_axis(mask, order, 2),
            }
            if sequences == 1:
                given = {name: array[:, 0] for name, array in given.items()}
            [logits] = peer.session.run(None, given)
            np.testing.assert_allclose(logits, answers, atol=1e-5)
    ran = run_card(tmp_path, monkeypatch)
    assert ran["logits"].shape == shape
    ids, mask = (ran["inputs"][name] for name in ("input_ids", "attention_mask"))
    for row, is_seen in zip(ids.reshape(-1, ids.shape[-1]), mask.reshape(-1, ids.shape[-1]), strict=True):
        read = row[is_seen == 1].tolist()
        assert (read[0], read[-1]) == (start, extract)
        assert (delimiter in read) == (format != "classification")


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the code that the model card shows, and return its variables."""
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_the_export_prints_nothing_keeps_no_weights_and_names_no_files_of_this_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = language_model(n_layer=1)
    weights = [weakref.ref(parameter) for parameter in model.parameters()]
    exported(model, tmp_path, "int8")
    assert capfd.readouterr() == ("", "")
    del model
    gc.collect()
    assert not any(weight() is not None for weight in weights)  # the proof needs their memory
    graph = (tmp_path / "model.onnx").read_bytes()
    assert b"site-packages" not in graph
    assert b".py" not in graph
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.onnx", "model.onnx_data"}


def test_the_command_proves_it_with_onnxruntime(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_model(language_model().to(torch.bfloat16), source)
    train_tokenizer("bpe:280", ["hear me speak, hear me speak. " * 9]).save_pretrained(source)
    options = ConvertOptions(source=str(source), destination=tmp_path / "exported", to="onnx")
    result = command.run(options, Console())
    assert result["dtype"] == "f32"  # there is no bf16
    assert result["peer"].startswith("onnxruntime 1.")
    assert result["max_logit_difference"] < 1e-4
    assert abs(result["nll_difference"]) < 1e-5
    assert result["tokenizer_ids_equal"]
    assert result["greedy_equal"]
    names = {path.name for path in (tmp_path / "exported").iterdir()}
    assert names >= {"README.md", "config.json", "model.onnx", "model.onnx_data", "tokenizer.json"}
    assert not any((tmp_path / "exported" / name).is_dir() for name in names)
