"""Without transformers, ids, texts and special tokens are those of tokenizer_in, or None is returned."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gptkit.decoding.native.tokenizer import LightTokenizer, read_tokenizer
from gptkit.decoding.text import TextStream, never_sampled, stop_ids
from gptkit.errors import InputError
from gptkit.text.tokenizers.any_tokenizer import END_OF_TEXT, separator_id
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer, tokenizer_in

TEXTS = ["To be, or not to be:\nthat's  the question.\n\n", "caf\u00e9 \U0001f600 don't 1,234", "to be to be to be"]


class Pair(NamedTuple):
    light: LightTokenizer
    whole: PreTrainedTokenizerBase


def pair(directory: Path) -> Pair:
    light = read_tokenizer(directory)
    assert light is not None
    return Pair(light, tokenizer_in(directory))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def bpe(folder: Path) -> Pair:
    train_tokenizer("bpe:290", TEXTS * 3).save_pretrained(folder / "bpe")
    return pair(folder / "bpe")


@pytest.fixture(scope="module")
def char(folder: Path) -> Pair:
    train_tokenizer("char", TEXTS).save_pretrained(folder / "char")
    return pair(folder / "char")


@pytest.fixture(scope="module")
def added(folder: Path) -> Pair:
    """Added tokens that are matched in text, special ones without a role, and a pad token."""
    tokenizer = train_tokenizer("bpe:290", TEXTS * 3)
    tokenizer.add_tokens([AddedToken("be or", lstrip=True, normalized=False), AddedToken("<x>", special=True)])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder / "added")
    return pair(folder / "added")


@pytest.fixture(scope="module")
def gpt2(folder: Path, test_data: Path) -> Pair:
    load_tokenizer(str(test_data / "tokenizers" / "gpt2")).save_pretrained(folder / "gpt2")
    return pair(folder / "gpt2")


@pytest.fixture(scope="module", params=["bpe", "char", "added", "gpt2"])
def both(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


ODD = st.sampled_from([*TEXTS, END_OF_TEXT, "<unk>", "<x>", "<pad>", "be or", " ", "\r\n", "\x00", "\x1b[", "\ufeff"])
TEXT = st.lists(ODD | st.text(max_size=8), max_size=6).map("".join)


@given(st.lists(TEXT, max_size=3))
@example([f"{END_OF_TEXT}<unk> to be or{END_OF_TEXT} <x><pad>", ""])
@settings(max_examples=60)
def test_ids_are_the_same(both: Pair, texts: list[str]) -> None:
    found, expected = encode_pieces(both.light, texts), encode_pieces(both.whole, texts)
    assert [ids.dtype for ids in found] == [ids.dtype for ids in expected]
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]
    for ids in expected:
        assert both.light.decode(ids.tolist()) == both.whole.decode(ids, clean_up_tokenization_spaces=False)


@given(st.data())
@settings(max_examples=60)
def test_texts_are_the_same_in_one_and_as_they_come(both: Pair, data: st.DataObject) -> None:
    """Any ids: parts of characters, special tokens, and ids of no token."""
    ids = data.draw(st.lists(st.integers(0, len(both.whole) + 2), max_size=20))
    context = data.draw(st.lists(st.integers(0, len(both.whole) - 1), max_size=3))
    assert both.light.decode(ids) == both.whole.decode(ids, clean_up_tokenization_spaces=False)
    streams = [TextStream(tokenizer, context) for tokenizer in both]
    for id in ids:
        assert streams[0].push(id) == streams[1].push(id)
    assert streams[0].end() == streams[1].end()


def test_special_tokens_are_the_same(both: Pair) -> None:
    light, whole = both
    assert len(light) == len(whole)
    assert light.get_vocab() == whole.get_vocab()
    assert (light.eos_token_id, light.unk_token_id) == (whole.eos_token_id, whole.unk_token_id)
    assert set(light.all_special_ids) == set(whole.all_special_ids)
    assert separator_id(light) == separator_id(whole)
    assert stop_ids(light) == stop_ids(whole)
    assert never_sampled(light, len(whole) + 5) == never_sampled(whole, len(whole) + 5)
    for id in (0, len(whole) - 1, len(whole)):
        assert light.convert_ids_to_tokens(id) == whole.convert_ids_to_tokens(id)
    assert light.name_or_path == whole.name_or_path


def test_characters_are_decoded_when_they_are_whole(bpe: Pair) -> None:
    ids = encode_pieces(bpe.light, ["\U0001f600"])[0]
    stream = TextStream(bpe.light)
    assert [stream.push(int(id)) for id in ids] == ["", "", "", "\U0001f600"][-len(ids) :]


# --- other directories ---


def settle(**settings: Any) -> Callable[[Path], None]:
    def settle_in(directory: Path) -> None:
        path = directory / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return settle_in


def as_on_the_hub(directory: Path) -> None:
    """GPT-2's own tokenizer_config.json does not name its special token."""
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 1024}')


def without_config(directory: Path) -> None:
    (directory / "tokenizer_config.json").unlink()


def as_older_versions_saved(directory: Path) -> None:
    tokens = Tokenizer.from_file(str(directory / "tokenizer.json")).get_added_tokens_decoder()
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    listed = {str(id): {flag: getattr(token, flag) for flag in flags} for id, token in tokens.items()}
    role = {"add_prefix_space": False, "unk_token": END_OF_TEXT, "errors": "replace", "pad_token": None}
    settle(added_tokens_decoder=listed, tokenizer_class="GPT2Tokenizer", extra_special_tokens={}, **role)(directory)
    (directory / "special_tokens_map.json").write_text(json.dumps({"unk_token": {"content": "<x>"}}))


def in_a_run(directory: Path) -> None:
    (directory / "model").mkdir()
    for file in [*directory.glob("*.json")]:
        shutil.move(file, directory / "model")


@pytest.mark.parametrize("change", [as_on_the_hub, without_config, as_older_versions_saved, in_a_run])
def test_directories_that_others_wrote(bpe: Pair, folder: Path, tmp_path: Path, change: Any) -> None:
    shutil.copytree(folder / "bpe", tmp_path, dirs_exist_ok=True)
    change(tmp_path)
    both = pair(tmp_path)
    test_special_tokens_are_the_same(both)
    ids = [encode_pieces(tokenizer, [f"to be {END_OF_TEXT}"])[0] for tokenizer in both]
    assert np.array_equal(*ids)


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda directory: [(directory / name).write_text(text), None][1]


def edit(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit_in(directory: Path) -> None:
        path = directory / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit_in


NOT_PLAIN = [
    write("special_tokens_map.json", "{}"),
    write("added_tokens.json", "{}"),
    write("tokenizer_config.json", "[]"),
    write("tokenizer.json", "{"),
    write("tokenizer.json", "{}"),
    settle(auto_map={}),
    settle(split_special_tokens=True),
    settle(unheard_of=1),
    settle(extra_special_tokens=["<y>"]),
    settle(mask_token="<mask>"),
    settle(mask_token="to"),
    settle(eos_token={"content": END_OF_TEXT}),
    settle(added_tokens_decoder={"3": {"content": "to"}}),
    edit(lambda content: content["model"]["vocab"].update({"\n</w>": len(content["model"]["vocab"]) + 1})),
    edit(lambda content: content.update(added_tokens=[])),
    edit(
        lambda content: content.update(
            truncation={"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
        )
    ),
]


@pytest.mark.parametrize("change", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_transformers(bpe: Pair, folder: Path, tmp_path: Path, change: Any) -> None:
    shutil.copytree(folder / "bpe", tmp_path, dirs_exist_ok=True)
    change(tmp_path)
    assert read_tokenizer(tmp_path) is None


def test_other_layouts_are_left_to_transformers(test_data: Path, tmp_path: Path) -> None:
    assert read_tokenizer(test_data / "tokenizers" / "gpt2") is None
    assert read_tokenizer(test_data / "tokenizers" / "gpt1") is None
    assert read_tokenizer(tmp_path) is None
    with pytest.raises(InputError):
        tokenizer_in(tmp_path)


def test_special_tokens_that_stand_in_the_vocabulary_alone_are_left_to_transformers(tmp_path: Path) -> None:
    trained = train_tokenizer("bpe:290", TEXTS).backend_tokenizer
    content = json.loads(trained.to_str())
    content["model"]["vocab"][END_OF_TEXT] = content["added_tokens"].pop()["id"]
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content))).save_pretrained(tmp_path)
    assert read_tokenizer(tmp_path) is None


def test_neither_torch_nor_transformers_is_imported(bpe: Pair, folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from gptkit.decoding.native.tokenizer import read_tokenizer;"
        "from gptkit.text.tokenizers.any_tokenizer import separator_id;"
        "from gptkit.text.tokenizers.encoding import encode_pieces;"
        f"tokenizer = read_tokenizer(Path({str(folder / 'bpe')!r}));"
        "print(separator_id(tokenizer), len(encode_pieces(tokenizer, ['to be'])),"
        "[name for name in ('torch', 'transformers', 'spacy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{separator_id(bpe.whole)} 1 []"
