"""CTranslate2 computes what gptkit does from what is exported: ids of any text, logits of any shape, greedy text."""

from __future__ import annotations

import ast
import io
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

pytest.importorskip("ctranslate2")

from gpt_toy import FAMILIES, toy
from gptkit.console import Console
from gptkit.convert import command, hf
from gptkit.convert import ctranslate2 as format
from gptkit.convert.formats import COMPLETE, FORMATS
from gptkit.convert.options import ConvertOptions
from gptkit.errors import InputError
from gptkit.model.loading import save_model
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer

TEXT = "First Citizen: before we proceed any further, hear me speak.\n" * 20
AWKWARD = "naïve  \U0001f469‍\U0001f680 你好\r\n\tΣ \x00<unk> <7> <<299>> [é] Ġthe <|endoftext|>\n\n hear  me"
ADDED = ["\n\n", " x", "<0x0A>", "é", "<290>", "你好"]
VOCABULARY = 300


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE with added tokens that look like bytes, whitespace, and the names of rows without a token."""
    trained = train_tokenizer("bpe:280", [TEXT])
    trained.add_tokens(ADDED)
    return trained


def exported(
    model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str = "f32"
) -> tuple[format.Peer, str]:
    """Return CTranslate2 with what was written, and the warnings."""
    err = io.StringIO()
    folder.mkdir(exist_ok=True)
    format.refuse(model, tokenizer, dtype)
    format.write(model, tokenizer, folder, dtype, quiet(err))
    return format.Peer(folder), err.getvalue()


def quiet(err: io.StringIO | None = None) -> Console:
    return Console(stdout=io.StringIO(), stderr=err or io.StringIO(), environment={})


def logits(model: GPTForCausalLM, ids: list[int]) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = model(input_ids=torch.tensor([ids])).logits[0].float().numpy()
    return found


SHAPES: list[dict[str, Any]] = [
    {},
    {"activation_function": "gelu"},
    {"n_inner": 48},
    {"tie_word_embeddings": False},
    {"layer_norm_epsilon": 0.1},
    {"n_layer": 1, "n_head": 1, "n_positions": 7},
]


@pytest.mark.parametrize("pre_norm", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_and_greedy_text_are_the_models_own(
    pre_norm: bool, shape: dict[str, Any], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = toy(pre_norm, vocab_size=VOCABULARY, **shape)
    peer, _ = exported(model, tokenizer, tmp_path)
    ids = torch.randint(VOCABULARY, (model.config.n_positions,), generator=torch.Generator().manual_seed(1)).tolist()
    np.testing.assert_allclose(peer.logits(ids), logits(model, ids), atol=1e-4, rtol=0)
    text = ids[:3]
    while len(text) < len(ids):
        text.append(int(logits(model, text)[-1].argmax()))
    assert peer.greedy(ids[:3], len(ids) - 3) == text[3:]


def test_greedy_text_goes_on_past_the_end_of_text_token(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model, end = toy(vocab_size=VOCABULARY), tokenizer.eos_token_id
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(100 * model.transformer.wte.weight[end])
    peer, _ = exported(model, tokenizer, tmp_path)
    assert peer.greedy([1], 5) == [end] * 5


@pytest.mark.parametrize("dtype", format.WEIGHTS)
def test_the_weights_are_those_that_ctranslate2s_own_converter_writes_of_the_hf_export(
    dtype: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    from ctranslate2.converters import TransformersConverter

    model = toy(vocab_size=len(tokenizer))
    (tmp_path / "hf").mkdir()
    hf.write(model, tokenizer, tmp_path / "hf", "f32", quiet())
    TransformersConverter(str(tmp_path / "hf")).convert(str(tmp_path / "theirs"), quantization=format.WEIGHTS[dtype])
    exported(model, tokenizer, tmp_path / "ours", dtype)
    for name in ("model.bin", "vocabulary.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    ours, theirs = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs"))
    assert ours == theirs | {"layer_norm_epsilon": 1e-5}  # which is what it takes for none


@pytest.mark.parametrize(("dtype", "lost"), {"f16": 2e-2, "bf16": 0.2, "int8": 0.5}.items())
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
def test_a_lesser_type_costs_what_its_bits_do_and_leaves_the_model_alone(
    dtype: str, lost: float, source: torch.dtype, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = toy(vocab_size=VOCABULARY).to(source)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    peer, _ = exported(model, tokenizer, tmp_path, dtype)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    ids = list(range(model.config.n_positions))
    difference = np.abs(peer.logits(ids) - logits(model.float(), ids))
    assert (difference.max() > 0) == (dtype != "bf16" or source != torch.bfloat16) or difference.max() < 1e-4
    assert difference.mean() < lost


@pytest.mark.parametrize("kind", ["bpe", "char", "gpt1"])
def test_ids_of_any_text_are_the_tokenizers(kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    if kind == "char":
        tokenizer = train_tokenizer("char", [TEXT, AWKWARD])
    if kind == "gpt1":
        tokenizer = gpt1_tokenizer()
    model = toy(pre_norm=kind != "gpt1", vocab_size=VOCABULARY)
    peer, err = exported(model, tokenizer, tmp_path)
    names = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    assert len(set(names)) == len(names) == VOCABULARY
    assert f"{VOCABULARY - len(tokenizer):,} of 300 ids" in err
    for text in (TEXT, AWKWARD, "", "unknown: Ж"):
        assert peer.encode(text) == tokenizer.encode(text)
    for ids in torch.arange(VOCABULARY).split(model.config.n_positions):  # CTranslate2's id of each name is its place
        by_name = peer._generator.forward_batch([[names[id] for id in ids]])
        np.testing.assert_array_equal(np.asarray(by_name)[0], peer.logits(ids.tolist()))


def gpt1_tokenizer() -> PreTrainedTokenizerBase:
    pytest.importorskip("ftfy")
    pytest.importorskip("spacy")
    from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer

    letters = [chr(code) for code in itertools.chain(range(0x21, 0x7F)) if not chr(code).isupper()]
    pieces = ["<unk>", *letters, *(f"{letter}</w>" for letter in letters), "he", "ar</w>", "hear</w>", "\n</w>"]
    merges = [("h", "e"), ("a", "r</w>"), ("he", "ar</w>")]
    return GPT1Tokenizer({piece: id for id, piece in enumerate(pieces)}, merges)


@pytest.mark.parametrize("name", ["gpt1", "gpt2"])
def test_openais_vocabularies_stay_in_step(name: str, test_data: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(test_data / "tokenizers" / name))
    model = toy(pre_norm=name == "gpt2", vocab_size=len(tokenizer) + 47, n_embd=4)
    peer, _ = exported(model, tokenizer, tmp_path)
    text = AWKWARD + (test_data / "corpora" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:20_000]
    assert peer.encode(text) == tokenizer.encode(text)
    if name == "gpt2":
        assert AutoTokenizer.from_pretrained(tmp_path)(AWKWARD)["input_ids"] == peer.encode(AWKWARD)


@pytest.mark.parametrize(("pre_norm", "dtype"), [(True, "f32"), (False, "f32"), (True, "int8")])
def test_the_command_has_ctranslate2_prove_it(
    pre_norm: bool,
    dtype: str,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(toy(pre_norm, vocab_size=VOCABULARY), tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    asked = ConvertOptions(source=str(tmp_path / "source"), destination=tmp_path / "new", to="ctranslate2", dtype=dtype)
    result = command.run(asked, quiet())
    assert result["peer"].startswith("CTranslate2 ")
    assert result["tokenizer_ids_equal"]
    assert dtype == "int8" or result["max_logit_difference"] < 1e-4
    assert dtype == "int8" or result["greedy_equal"]
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / "new")])
    exec(COMPLETE, {})  # what `next:` names, without the shell
    assert len(ast.literal_eval(capsys.readouterr().out)) == 20
    assert FORMATS["ctranslate2"].dtypes == tuple(format.WEIGHTS)


def test_without_a_tokenizer_each_id_has_a_name(tmp_path: Path) -> None:
    model = toy(vocab_size=VOCABULARY)
    peer, err = exported(model, None, tmp_path)
    assert "300 of 300 ids have no token" in err
    assert peer.encode(TEXT) is None
    assert json.loads((tmp_path / "vocabulary.json").read_text())[7] == "<7>"
    assert peer.greedy([7, 8], 1) == [int(logits(model, [7, 8])[-1].argmax())]


def test_a_tokenizer_without_an_end_of_text_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(InputError, match="to separate documents"):
        format.refuse(toy(), PreTrainedTokenizerFast(tokenizer_object=backend), "f32")
