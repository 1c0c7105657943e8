"""BERT's tokenizer, which Chinese GPT-2 models use: [SEP] separates documents, and no space parts the characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertTokenizer, GPT2Config, GPT2LMHeadModel

from gptkit.cli.main import main
from gptkit.decoding.native.tokenizer import read_tokenizer
from gptkit.errors import InputError
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.loading import fingerprint, tokenizer_in

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"他说走了，。！", "ok", "##ay", "gp", "##u"]
SETTINGS = {"do_lower_case": False, "max_len": 1024, "tokenizer_class": "BertTokenizer"}


def write_tokenizer(folder: Path, layout: str) -> Path:
    """Write vocab.txt and its settings, as old models have them, or the tokenizer.json of newer ones, or that alone."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(ENTRIES) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    if layout != "vocab.txt":
        BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    if layout == "tokenizer.json alone":
        (folder / "tokenizer_config.json").unlink()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 1}
    network = GPT2LMHeadModel(GPT2Config(vocab_size=len(ENTRIES), **sizes))  # bos and eos: 50256, beyond the vocabulary
    network.transformer.wte.weight.data[:5] *= 40  # the special tokens would be drawn all the time
    network.save_pretrained(folder)
    return write_tokenizer(folder, "vocab.txt")


@pytest.mark.parametrize("layout", ["vocab.txt", "tokenizer.json", "tokenizer.json alone"])
def test_every_layout_gives_transformers_ids_and_separates_with_sep(layout: str, tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "source", layout)
    tokenizer, theirs = tokenizer_in(folder), BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False)
    (ids,) = encode_pieces(tokenizer, ["他说okay，走了！ gpu"])
    assert ids.tolist() == theirs("他说okay，走了！ gpu", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == "他说okay，走了！gpu"
    assert tokenizer.decode(encode_pieces(tokenizer, ["ok gpu"])[0]) == "ok gpu"
    assert separator_id(tokenizer) == ENTRIES.index("[SEP]")
    assert {*tokenizer.all_special_ids} == {*range(5)}  # so that none of them is sampled
    tokenizer.save_pretrained(tmp_path / "saved")
    assert fingerprint(tokenizer_in(tmp_path / "saved")) == fingerprint(tokenizer)
    light = read_tokenizer(tmp_path / "saved")
    assert light is not None
    assert light.decode(ids.tolist()) == tokenizer.decode(ids)
    assert (separator_id(light), light.all_special_ids) == (separator_id(tokenizer), [*range(5)])
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").eos_token == "[SEP]"


def test_another_end_token_that_the_settings_name_stands(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, "vocab.txt")
    (folder / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, "eos_token": "[CLS]"}))
    assert separator_id(tokenizer_in(folder)) == ENTRIES.index("[CLS]")


def test_without_any_end_token_the_error_says_where_to_name_one(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, "tokenizer.json alone")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8").replace("[SEP]", "[END]")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r'tokenizer_config.json, such as "eos_token": "\[SEP\]"'):
        separator_id(tokenizer_in(folder))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "[END]"}')
    assert separator_id(tokenizer_in(folder)) == ENTRIES.index("[SEP]")


def test_a_vocabulary_without_its_unknown_token_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("<unk>\n他\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"the vocabulary has no \[UNK\]") as refusal:
        tokenizer_in(tmp_path)
    assert '"unk_token": "<unk>"' in str(refusal.value.fix)
    (tmp_path / "tokenizer_config.json").write_text('{"unk_token": "<unk>"}')
    assert tokenizer_in(tmp_path).unk_token_id == 0


def test_such_a_model_generates_converts_and_trains_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def generated(folder: Path) -> list[str]:
        line = ["generate", "他说", "--model", str(folder), "--num-samples", "8", "--max-new-tokens", "12", "--json"]
        assert main(line) == 0
        return [sample["text"] for sample in json.loads(capsys.readouterr().out)["samples"]]

    texts = generated(model)
    assert any("".join(texts))
    assert not any(token in text for token in ENTRIES[:5] for text in texts)
    assert not any(
        f"{left} {right}" in text for left in "他说走了，。！" for right in "他说走了，。！" for text in texts
    )
    for kind in ("gptkit", "hf"):
        assert main(["convert", str(model), str(tmp_path / kind), "--to", kind, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["tokenizer"]
        assert generated(tmp_path / kind) == texts
    (tmp_path / "zh.txt").write_text("他说走了。" * 60 + "\n" + "他走了！" * 60, encoding="utf-8")
    run = ["--steps", "1", "--tokens-per-step", "32", "--out", str(tmp_path / "run"), "--json"]
    assert main(["pretrain", str(tmp_path / "zh.txt"), "--model", str(model), *run]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    generated(tmp_path / "run")
