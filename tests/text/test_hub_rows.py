from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptkit.errors import InputError, OutOfResources
from gptkit.text import corpora, hub_rows
from gptkit.text.corpora import open_corpus
from gptkit.text.hub_rows import materialise


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


def load_of(rows: Any) -> Callable[..., Any]:
    return lambda name, configuration, *, split, streaming: rows


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def no_probe(name: str) -> None:
    return None


def test_only_as_much_is_read_as_is_needed_and_only_once() -> None:
    rows = Rows([{"text": f"row {i:04}"} for i in range(1000)])
    first = materialise("hf:some/data:config", characters=80, load=load_of(rows), probe=no_probe)
    assert rows.read == 10
    assert texts(first.path) == [f"row {i:04}" for i in range(10)]

    def offline(name: str) -> None:
        raise AssertionError("what is in the cache needs no network")

    assert materialise("hf:some/data:config", characters=80, probe=offline) == first
    assert materialise("hf:some/data", characters=80, load=load_of(rows), probe=no_probe).path != first.path


def test_rows_without_usable_text_are_left_out() -> None:
    rows = Rows([{"text": text} for text in ("a", None, " ", "\0", "\ud800", 5, "caf\u00e9")])
    text = materialise("hf:x", characters=None, load=load_of(rows), probe=no_probe)
    assert texts(text.path) == ["a", "caf\u00e9"]
    assert text.left_out == 5


def test_a_real_streaming_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import load_dataset

    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps({"text": f"document {i}"}) + "\n" for i in range(100)))

    def load(name: str, configuration: str | None, **options: Any) -> Any:
        assert (name, configuration) == ("some/data", "config")
        return load_dataset("json", data_files=str(source), cache_dir=str(tmp_path / "hf"), **options)

    monkeypatch.setattr(hub_rows, "_load_dataset", load)
    monkeypatch.setattr(hub_rows, "_probe", no_probe)
    corpus = open_corpus(["hf:some/data:config"], "0.1", hub_characters=500)
    pieces = sorted([*corpus.train_pieces(), *corpus.validation_pieces()], key=lambda piece: piece.document)
    assert [piece.text for piece in pieces] == [f"document {i}" for i in range(47)]
    assert corpus.kind == "hub"
    assert corpora.open_corpus(["hf:some/data:config"], "0.2", hub_characters=500).data_sha256 == corpus.data_sha256


def test_what_goes_wrong_is_told_in_one_line() -> None:
    def broken(*_: object, **__: object) -> Any:
        raise ConnectionError("no route\nto host")

    class Breaking(Rows):
        def __iter__(self) -> Iterator[dict[str, object]]:
            yield from self.rows
            raise ConnectionError("reset")

    def full(name: str) -> None:
        raise OutOfResources("full")

    row: dict[str, object] = {"text": "a"}
    for load, message in (
        (broken, "cannot be read: no route"),
        (load_of(Breaking([row])), "cannot be read: reset"),
        (load_of(Rows([{"content": "a"}])), 'no column "text" .columns: content'),
        (load_of(Rows([{"text": ""}])), "no text in this data set"),
    ):
        with pytest.raises(InputError, match=message) as refusal:
            materialise("hf:x", characters=None, load=load, probe=no_probe)
        assert refusal.value.where == "hf:x"
        assert "\n" not in str(refusal.value)
    with pytest.raises(OutOfResources):
        materialise("hf:x", characters=None, load=load_of(Rows([row])), probe=full)
    with pytest.raises(InputError, match="no data set named"):
        materialise("hf:", characters=None)
