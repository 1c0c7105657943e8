from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptkit.errors import InputError, OutOfResources
from gptkit.text import corpora
from gptkit.text.corpora import download_text, open_corpus


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))


class Rows:
    """Stands in for a streamed data set; counts what was read."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows, self.read = rows, 0
        self.column_names = list(rows[0])

    def __iter__(self) -> Iterator[dict[str, object]]:
        for row in self.rows:
            self.read += 1
            yield row


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let rows stand in for the data set that is fetched, or a function for what fetches it."""
    monkeypatch.setattr("gptkit.system.hub.require_hub", lambda name: None)

    def serve(rows: Any) -> None:
        load = rows if callable(rows) else lambda name, configuration, *, split, streaming: rows
        monkeypatch.setattr("datasets.load_dataset", load)

    return serve


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8-sig").splitlines()]


def test_only_as_much_is_read_as_is_needed_and_only_once(
    hub: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Rows([{"text": f"row {i:04}"} for i in range(1000)])
    hub(rows)
    first = download_text("hf:some/data:config", characters=80)
    assert rows.read == 10
    assert texts(first.path) == [f"row {i:04}" for i in range(10)]

    assert download_text("hf:some/data", characters=80).path != first.path

    def offline(name: str) -> None:
        raise AssertionError("what is in the cache needs no network")

    monkeypatch.setattr("gptkit.system.hub.require_hub", offline)
    assert download_text("hf:some/data:config", characters=80) == first


def test_rows_without_usable_text_are_left_out(hub: Callable[..., None]) -> None:
    rows = Rows([{"text": text} for text in ("a", None, " ", "\0", "\ud800", 5, "caf\u00e9")])
    hub(rows)
    text = download_text("hf:x", characters=None)
    assert texts(text.path) == ["a", "caf\u00e9"]
    assert text.left_out == 5


def test_a_real_streaming_data_set(tmp_path: Path, hub: Callable[..., None]) -> None:
    from datasets import load_dataset

    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps({"text": f"document {i}"}) + "\n" for i in range(100)))

    def load(name: str, configuration: str | None, **options: Any) -> Any:
        assert (name, configuration) == ("some/data", "config")
        return load_dataset("json", data_files=str(source), cache_dir=str(tmp_path / "hf"), **options)

    hub(load)
    corpus = open_corpus(["hf:some/data:config"], "0.1", hub_characters=500)
    pieces = sorted([*corpus.train.pieces(), *corpus.validation.pieces()], key=lambda piece: piece.document)
    assert [piece.text for piece in pieces] == [f"document {i}" for i in range(47)]
    assert corpus.description == "hf:some/data:config"
    assert corpora.open_corpus(["hf:some/data:config"], "0.2", hub_characters=500).data_sha256 == corpus.data_sha256


def test_what_goes_wrong_is_told_in_one_line(hub: Callable[..., None]) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise ConnectionError("no route\nto host")

    class Breaking(Rows):
        def __iter__(self) -> Iterator[dict[str, object]]:
            yield from self.rows
            raise ConnectionError("reset")

    def full(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    row: dict[str, object] = {"text": "a"}
    for rows, message in (
        (broken, "cannot be read: no route"),
        (Breaking([row]), "cannot be read: reset"),
        (Rows([{"content": "a"}]), 'no column "text" .columns: content'),
        (Rows([{"text": ""}]), "no text in this data set"),
    ):
        hub(rows)
        with pytest.raises(InputError, match=message) as refusal:
            download_text("hf:x", characters=None)
        assert refusal.value.where == "hf:x"
        assert "\n" not in str(refusal.value)
    hub(full)
    with pytest.raises(OutOfResources):
        download_text("hf:x", characters=None)
    with pytest.raises(InputError, match="no data set named"):
        download_text("hf:", characters=None)
