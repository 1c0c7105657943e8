"""A trained tokenizer comes from the cache the second time, the very same one, and never from a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptkit.text.corpora import TextPart, open_corpus
from gptkit.text.tokenizers import loading
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import cached_tokenizer, fingerprint

TEXT = "To be, or caf\u00e9 \U0001f600 not\r\n\tto \x0bbe.\n" * 90


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenizers"


@pytest.fixture
def text(tmp_path: Path) -> TextPart:
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    return open_corpus([str(tmp_path / "text.txt")], "0.1").train


@pytest.mark.parametrize("spec", ["char", "bpe:280"])
def test_trained_once_it_is_read_and_saved_alike_ever_after(
    spec: str, text: TextPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train_tokenizer(spec, (piece.text for piece in text.pieces()))
    first, was_cached = cached_tokenizer(spec, text)
    assert not was_cached
    monkeypatch.setattr(loading, "train_tokenizer", lambda *_: pytest.fail("trained again"))
    second, was_cached = cached_tokenizer(spec, text)
    assert was_cached
    saved = []
    for name, tokenizer in (("expected", expected), ("first", first), ("second", second)):
        assert fingerprint(tokenizer) == fingerprint(expected)
        tokenizer.save_pretrained(tmp_path / name)
        saved.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert saved[0] == saved[1] == saved[2]


def test_other_text_spec_or_library_and_a_flipped_bit_are_trained_anew(
    text: TextPart, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, _ = cached_tokenizer("bpe:280", text)
    (path,) = own_cache.glob("*.bin")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again, was_cached = cached_tokenizer("bpe:280", text)
    assert not was_cached
    assert path.read_bytes() == whole
    assert fingerprint(again) == fingerprint(tokenizer)

    (tmp_path / "other.txt").write_bytes(TEXT.encode() + b"!")
    other = open_corpus([str(tmp_path / "other.txt")], "0.1").train
    assert not cached_tokenizer("bpe:280", other)[1]
    assert not cached_tokenizer("bpe:281", text)[1]
    monkeypatch.setattr("tokenizers.__version__", "0.0")
    assert not cached_tokenizer("bpe:280", text)[1]
