from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptkit.system.cache import cache_directory
from gptkit.text import embedded
from gptkit.text.corpora import open_corpus


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPTKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        embedded.embedded_documents.cache_clear()
        yield Path(tmp_path_factory.getbasetemp())
    embedded.embedded_documents.cache_clear()


def test_it_is_about_two_megabytes_of_distinct_english() -> None:
    texts = [document.text for document in embedded.embedded_documents()]
    assert len(set(texts)) == len(texts) > 5_000
    assert 1.5e6 < sum(map(len, texts)) < 3e6
    assert all(text == text.strip() and text for text in texts)
    letters = sum(character.isascii() and character.isalpha() for text in texts for character in text)
    assert letters > 0.6 * sum(map(len, texts))


def test_documents_know_where_they_stand() -> None:
    by_name = {(document.module, document.qualname): document for document in embedded.embedded_documents()}
    wrap = by_name["textwrap", "TextWrapper.wrap"]
    assert wrap.text.startswith("wrap(text : string) -> [string]")
    assert (wrap.package, wrap.group) == ("textwrap", "module:textwrap")
    assert by_name["json", ""].text.startswith("JSON (JavaScript Object Notation)")
    assert by_name["asyncio.events", "Handle"].package == "asyncio"
    assert by_name["pydoc_data.topics", "assert"].group == "topic:assert"


def test_nothing_of_the_library_is_imported_to_read_it() -> None:
    code = (
        "import sys; from gptkit.text import embedded; embedded.embedded_documents();"
        "print([name for name in ('this', 'antigravity', 'tkinter', 'pydoc_data.topics') if name in sys.modules])"
    )
    assert json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)) == []


def test_the_default_corpus_is_split_by_module_and_topic() -> None:
    corpus = open_corpus([], "0.1")
    train, validation = ({piece.source for piece in side()} for side in (corpus.train.pieces, corpus.validation.pieces))
    assert not train & validation
    assert {source.partition(":")[0] for source in validation} == {"module", "topic"}
    assert 0.04 < corpus.validation.about_bytes / (corpus.train.about_bytes + corpus.validation.about_bytes) < 0.2
    assert corpus.description.startswith("documentation of Python")
    assert corpus.data_sha256 == open_corpus([], "0.2").data_sha256


def test_a_module_reads_like_a_page() -> None:
    [page] = (text for group, text in embedded.embedded_texts() if group == "module:textwrap")
    assert page.startswith("textwrap\n\nText wrapping and filling.\n\nTextWrapper\n\nObject for wrapping/filling text.")


def test_the_library_is_read_once_and_again_when_the_cache_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    first = embedded.embedded_documents()
    readings = []
    monkeypatch.setattr(embedded, "_read_all", lambda: readings.append(1) or map(dataclasses.astuple, first[:9]))
    embedded.embedded_documents.cache_clear()
    assert embedded.embedded_documents() == first
    assert not readings
    [facts] = (cache_directory() / "embedded").glob("*.json.json")
    data = facts.with_suffix("")
    data.write_bytes(data.read_bytes().replace(b"wrap", b"WRAP"))
    embedded.embedded_documents.cache_clear()
    assert embedded.embedded_documents() == first[:9]
    embedded.embedded_documents.cache_clear()


def test_an_unusable_cache_costs_no_more_than_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = ("Text.", "a", "a.b", "c")
    monkeypatch.setattr(embedded, "_read_all", lambda: iter([found, found]))
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "file"))
    embedded.embedded_documents.cache_clear()
    assert embedded.embedded_documents() == (embedded.EmbeddedDocument(*found),)
    embedded.embedded_documents.cache_clear()
