from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from gptkit.errors import InputError, UsageError
from gptkit.manage.options import TokenizerTrainOptions
from gptkit.options import fields_of
from gptkit.pretrain.options import PretrainOptions
from gptkit.text import pieces as cutting
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.any_tokenizer import TRAINED, separator_id
from gptkit.text.tokenizers.encoding import encode_documents, encode_pieces, ids_dtype
from gptkit.text.tokenizers.kinds import KINDS, is_char, needs_training, train_tokenizer, training_note
from gptkit.text.tokenizers.loading import fingerprint, load_tokenizer

END = "<|endoftext|>"
TEXTS = ["To be, or not to be:\nthat's  the question.\n\n", "caf\u00e9 \U0001f600 don't 1,234", "to be to be to be"]


@pytest.fixture(scope="module")
def bpe() -> PreTrainedTokenizerBase:
    return train_tokenizer("bpe:290", TEXTS * 3)


@pytest.fixture(scope="module")
def char() -> PreTrainedTokenizerBase:
    return train_tokenizer("char", TEXTS)


@pytest.fixture(scope="module", params=[kind.spec.replace("N", "290") for kind in KINDS])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Give one of each kind, so that a new one is held to what every kind must do."""
    return train_tokenizer(request.param, TEXTS * 3)


def test_char_numbers_characters_as_nanogpt_does(char: PreTrainedTokenizerBase) -> None:
    characters = sorted(set("".join(TEXTS)))
    text = "".join(TEXTS)
    assert encode_pieces(char, [text])[0].tolist() == [characters.index(character) for character in text]
    assert char.convert_ids_to_tokens([len(characters), len(characters) + 1]) == [END, "<unk>"]
    assert len(char) == len(characters) + 2
    assert char.decode(char(text)["input_ids"]) == text
    assert encode_pieces(char, ["q\u4f60t"])[0].tolist() == [
        characters.index("q"),
        char.unk_token_id,
        char("t")["input_ids"][0],
    ]


def test_bpe_has_bytes_first_and_the_end_of_text_last(bpe: PreTrainedTokenizerBase) -> None:
    assert len(bpe) == 290
    assert separator_id(bpe) == 289
    assert bpe.decode([0, 255]) == "!\ufffd"  # the order of GPT-2's bytes: 33 comes first, 173 last
    text = "\u4f60 \x00 any text at all\r\n"
    assert bpe.decode(encode_pieces(bpe, [text])[0]) == text
    assert training_note("bpe:290", bpe) is None


def test_training_says_when_the_text_yields_less() -> None:
    tokenizer = train_tokenizer("bpe:300", ["abab"])
    assert len(tokenizer) == 258  # ab occurs twice, abab once
    note = training_note("bpe:300", tokenizer)
    assert note is not None
    assert "258 entries" in note
    assert training_note("char", tokenizer) is None


def test_training_does_not_depend_on_threads(tmp_path: Path) -> None:
    words = [f"{chr(97 + i % 26)}{i * i % 97} low{i % 7}er" for i in range(2000)]
    (tmp_path / "words.json").write_text(json.dumps(words))
    code = (
        "import json, sys; from gptkit.text.tokenizers.loading import fingerprint;"
        "from gptkit.text.tokenizers.kinds import train_tokenizer;"
        "print(fingerprint(train_tokenizer('bpe:400', json.load(open(sys.argv[1])))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "words.json")]
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    alone = subprocess.check_output(command, env=environment, text=True)
    assert alone.strip() == fingerprint(train_tokenizer("bpe:400", words))


@pytest.mark.parametrize("spec", ["bpe:256", "bpe:", "bpe:-5", "bpe:1e4", "bpe: 300", "bpe:\u0663\u0660\u0660"])
def test_a_wrong_size_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="whole number of at least 257"):
        needs_training(spec)


def test_what_is_trained_and_what_is_loaded() -> None:
    assert [needs_training(spec) for spec in ("char", "bpe:257", "gpt2-files", "hf:gpt2")] == [True, True, False, False]
    with pytest.raises(UsageError, match="must be trained"):
        load_tokenizer("char")
    with pytest.raises(InputError, match="no text"):
        train_tokenizer("char", iter([""]))


def test_the_help_of_commands_names_every_kind() -> None:
    for options in (PretrainOptions, TokenizerTrainOptions):
        text = fields_of(options)["tokenizer"].metadata["help"]
        assert TRAINED in text
    assert " or ".join(kind.spec for kind in KINDS) == TRAINED


def test_saved_and_loaded_it_is_the_same(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "run" / "model")
    text = "to be \u4f60 or"
    for directory in ("run", "run/model"):
        loaded = load_tokenizer(str(tmp_path / directory))
        assert fingerprint(loaded) == fingerprint(tokenizer)
        assert is_char(loaded) == is_char(tokenizer)
        assert encode_pieces(loaded, [text])[0].tolist() == encode_pieces(tokenizer, [text])[0].tolist()
        assert separator_id(loaded) == loaded.bos_token_id == loaded.eos_token_id == separator_id(tokenizer)
    plain = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")  # without a class of ours
    assert plain(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_the_fingerprint_follows_what_determines_ids(bpe: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    bpe.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    loaded.pad_token = END
    loaded(["a", "a b"], padding=True, truncation=True, max_length=2)
    assert fingerprint(loaded) == fingerprint(bpe)
    loaded.add_tokens(["question"])
    assert fingerprint(loaded) != fingerprint(bpe)


def test_specials_in_the_text_are_text(tokenizer: Any) -> None:
    text = f"to be{END} or"
    assert separator_id(tokenizer) in tokenizer(text)["input_ids"]
    ids = encode_pieces(tokenizer, [text])[0]
    assert separator_id(tokenizer) not in ids
    assert (tokenizer.decode(ids) == text) or is_char(tokenizer)
    assert separator_id(tokenizer) in tokenizer(text)["input_ids"]  # nobody else is affected


def test_pieces_ignore_padding_and_see_added_tokens(bpe: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    bpe.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    loaded.pad_token = END
    loaded(["to be", "to"], padding="max_length", truncation=True, max_length=3)
    assert [len(ids) for ids in encode_pieces(loaded, ["to be or not to be", "", "t"])] == [
        len(bpe("to be or not to be")["input_ids"]),
        0,
        1,
    ]
    loaded.add_tokens(["question"])
    assert encode_pieces(loaded, ["question"])[0].tolist() == [290]
    assert [ids.tolist() for ids in encode_pieces(loaded, TEXTS)] == loaded(TEXTS)["input_ids"]


def test_ids_take_the_smallest_type(bpe: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    assert encode_pieces(bpe, ["a"])[0].dtype == ids_dtype(bpe) == np.uint16
    monkeypatch.setattr(type(bpe), "__len__", lambda self: 65_537)
    assert encode_pieces(bpe, ["a"])[0].dtype == ids_dtype(bpe) == np.uint32


LINES = st.text(alphabet="to be'\n\t\r.,1\u00e9\u3000\x1c\u2028<|endoftext>", max_size=40)


@settings(max_examples=150)
@given(st.lists(LINES, min_size=1, max_size=4))
def test_documents_in_pieces_have_the_ids_of_the_whole(bpe: Any, char: Any, texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "TARGET_CHARACTERS", 5)
        patch.setattr(cutting, "LIMIT_CHARACTERS", 40)
        patch.setattr("gptkit.text.tokenizers.encoding._BATCH_CHARACTERS", 16)
        pieces = [Piece(part, n, "") for n, text in enumerate(texts) for part in cutting.cut([text])]
        for tokenizer in (bpe, char):
            found = [
                [id for _, ids in members for id in ids.tolist()]
                for _, members in groupby(encode_documents(tokenizer, iter(pieces)), key=lambda pair: pair[0])
            ]
            assert found == [ids.tolist() for ids in encode_pieces(tokenizer, texts)]


def test_a_fault_in_the_corpus_comes_through(bpe: PreTrainedTokenizerBase) -> None:
    def pieces() -> Any:
        yield Piece("to be", 0, "")
        raise InputError("unreadable", where="file:2")

    with pytest.raises(InputError, match="unreadable"):
        list(encode_documents(bpe, pieces()))


def openai_layout(tokenizer: Any, directory: Path, vocabulary: str, merges: str) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    entries = {**model["vocab"], END: len(model["vocab"])}
    directory.mkdir(exist_ok=True)
    (directory / vocabulary).write_text(json.dumps(entries), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"]), ""]
    (directory / merges).write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")])
def test_gpt2s_two_files(bpe: PreTrainedTokenizerBase, tmp_path: Path, names: tuple[str, str]) -> None:
    openai_layout(bpe, tmp_path, *names)
    loaded = load_tokenizer(str(tmp_path))
    assert [ids.tolist() for ids in encode_pieces(loaded, TEXTS)] == [ids.tolist() for ids in encode_pieces(bpe, TEXTS)]
    assert (len(loaded), separator_id(loaded), loaded.eos_token) == (290, 289, END)


def spoilt(name: str, content: str) -> Callable[[Any, Path], None]:
    def spoil(tokenizer: Any, directory: Path) -> None:
        openai_layout(tokenizer, directory, "encoder.json", "vocab.bpe")
        (directory / name).write_text(content, encoding="utf-8")

    return spoil


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda tokenizer, directory: None,
            "no tokenizer in .* pass one that holds tokenizer.json, or vocab.json.merges.txt, or",
        ),
        (lambda tokenizer, directory: (directory / "vocab.bpe").touch(), r"only vocab.bpe \("),
        (lambda tokenizer, directory: (directory / "tokenizer.json").mkdir(), "no tokenizer in"),
        (spoilt("tokenizer.json", "{}"), "more than one tokenizer: tokenizer.json and encoder.json.vocab.bpe"),
        (spoilt("encoder.json", "{"), "not valid JSON.*encoder.json"),
        (spoilt("encoder.json", "[" * 100_000), "not valid JSON.*encoder.json"),
        (spoilt("encoder.json", '{"a": 0, "b": 0}'), "not a vocabulary.*encoder.json"),
        (spoilt("encoder.json", '{"a": 0, "b": true}'), "not a vocabulary.*encoder.json"),
        (spoilt("encoder.json", '{"a": 0}'), "255 of the 256 byte symbols are missing"),
        (
            spoilt("vocab.bpe", "#version: 0.2\na b\na b c\n"),
            "a merge must have two pieces; this one has 3 .*vocab.bpe:3",
        ),
        (spoilt("vocab.bpe", "# nowhere\n"), "do not match"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    bpe: PreTrainedTokenizerBase, tmp_path: Path, prepare: Callable[[Any, Path], None], message: str
) -> None:
    prepare(bpe, tmp_path)
    with pytest.raises(InputError, match=message):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("content", ["{}", "[]", '{"model": {"type": "BPE"}}', '{"model": {"vocab": 3}}'])
def test_a_damaged_tokenizer_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=r"not a tokenizer file|tokenizer cannot be read"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"^this is a JSON array, but an object is needed \(.*tokenizer_config.json\)"),
        ('{"auto_map": {"AutoTokenizer": ["x.T", null]}}', "auto_map"),
    ],
)
def test_a_tokenizer_config_that_cannot_be_used_is_refused(
    bpe: PreTrainedTokenizerBase, tmp_path: Path, content: str, message: str
) -> None:
    bpe.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_tokenizer(str(tmp_path))


def test_a_name_that_is_no_directory_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such tokenizer directory \(gpt2\) .* or hf:gpt2 for the hub"):
        load_tokenizer("gpt2")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file, not a tokenizer's directory"):
        load_tokenizer(str(tmp_path / "file"))


def test_the_hub_is_probed_and_asked_for_tokenizer_files_alone(
    bpe: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bpe.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')  # all that GPT-2's says there
    asked: list[Any] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("gptkit.system.hub.require_hub", lambda what: asked.append(what))
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    loaded = load_tokenizer("hf:openai-community/gpt2")
    assert asked[0] == "hf:openai-community/gpt2"
    assert asked[1][0] == "openai-community/gpt2"
    assert not any(pattern.endswith((".safetensors", ".bin")) or "*" in pattern for pattern in asked[1][1])
    assert loaded.eos_token == END
    with pytest.raises(InputError, match="no tokenizer named"):
        load_tokenizer("hf:")


def test_a_hub_that_fails_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, **options: Any) -> str:
        raise OSError("401 Client Error.\nRepository Not Found")

    monkeypatch.setattr("gptkit.system.hub.require_hub", lambda what: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(InputError, match=r"cannot be fetched: 401 Client Error\. \(hf:nobody/nothing\)"):
        load_tokenizer("hf:nobody/nothing")


def test_openais_gpt2_files(test_data: Path) -> None:
    tokenizer = load_tokenizer(str(test_data / "tokenizers" / "gpt2"))
    assert (len(tokenizer), separator_id(tokenizer)) == (50_257, 50_256)
    assert [ids.tolist() for ids in encode_pieces(tokenizer, ["Hello world", " Hello world"])] == [
        [15496, 995],
        [18435, 995],
    ]
    text = (test_data / "corpora" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:100_000]
    pieces = [Piece(part, 0, "") for part in cutting.cut([text])]
    ids = np.concatenate([ids for _, ids in encode_documents(tokenizer, pieces)])
    assert tokenizer.decode(ids) == text
    assert ids.tolist() == tokenizer.backend_tokenizer.encode(text).ids
