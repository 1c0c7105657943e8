from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gptkit.errors import GptkitError, InputError, UsageError
from gptkit.scoring.running_text import Reading
from gptkit.tasks.benchmarks import hutter
from gptkit.tasks.benchmarks.hutter import last_twentieth
from gptkit.tasks.benchmarks.one_billion_words import sentences
from gptkit.tasks.benchmarks.perplexity import any_text
from gptkit.tasks.benchmarks.ptb import one_document
from gptkit.tasks.benchmarks.wikitext import articles
from gptkit.tasks.task import Loaded
from gptkit.tasks.text_corpora import PER_BYTE, Stream, corpus_row

STREAM = Stream(Reading("as they are"), "as it is", PER_BYTE)
WIKITEXT = " \n = First = \n \n one two \n = = Part = = \n \n = not a title \n \n = Second = \n \n three \n"


def load(name: str, documents: object, data: Path | None, *files: str) -> Loaded:
    row = corpus_row(name, files, "its authors", documents, STREAM)  # type: ignore[arg-type]
    return row.load(None if data is None else str(data))


def texts(name: str, documents: object, path: Path) -> list[tuple[str, str]]:
    loaded = load(name, documents, path.parent, path.name)
    return [(one.identifier, str(one.fields[0])) for one in loaded.examples]


def test_articles_begin_at_a_title_and_join_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wiki.test.tokens"
    path.write_text(WIKITEXT)
    found = texts("wikitext2", articles, path)
    assert [name for name, _ in found] == ["0:0", "1:0"]
    assert found[1][1] == "\n = Second = \n \n three \n"
    assert "".join(text for _, text in found) == WIKITEXT


def test_sentences_are_documents_and_join_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "news.en.heldout-00000-of-00050"
    path.write_text("One .\nTwo , three .\nFour\n")
    assert texts("1bw", sentences, path) == [("0:0", "One ."), ("1:0", "\nTwo , three ."), ("2:0", "\nFour\n")]


def test_files_are_found_in_their_folder_in_any_case(tmp_path: Path) -> None:
    folder = tmp_path / "Simple-Examples" / "data"
    folder.mkdir(parents=True)
    (folder / "PTB.test.txt").write_text(" no it was n't black monday \n")
    loaded = load("ptb", one_document, tmp_path, "ptb.test.txt", "simple-examples/data/ptb.test.txt")
    assert loaded.examples[0].fields == (" no it was n't black monday \n",)
    assert loaded.examples[0].where.endswith("PTB.test.txt:1")
    with pytest.raises(InputError, match=r"looked for wiki\.test\.raw.*found Simple-Examples/"):
        load("wikitext2", articles, tmp_path, "wiki.test.raw")
    with pytest.raises(UsageError, match=r"wikitext2 needs its data.*wiki\.test\.raw"):
        load("wikitext2", articles, None, "wiki.test.raw")


@pytest.mark.parametrize("zipped", [False, True])
def test_the_test_part_is_the_last_twentieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.setattr(hutter, "HUTTER_BYTES", 200)
    monkeypatch.setattr(hutter, "HUTTER_TEST_BYTES", 10)
    raw = ("x" * 189 + "é" + "tëst 678").encode()[:200]  # the test part begins within é
    path = tmp_path / "enwik8"
    path.write_bytes(raw)
    if zipped:
        with zipfile.ZipFile(tmp_path / "enwik8.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, "enwik8")
        path.unlink()
        path = tmp_path / "enwik8.zip"
    assert texts("enwik8", last_twentieth, path) == [("0:0", "tëst 678")]


def test_the_published_split_is_90_5_5_million() -> None:
    assert (hutter.HUTTER_BYTES, hutter.HUTTER_TEST_BYTES) == (100_000_000, 5_000_000)


def write_zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 200)


BAD = {
    "not UTF-8": (one_document, b"one\ntwo \xff\n", r":2, byte 8"),
    "a NUL byte": (articles, b" = A = \n \n b\0c \n", r":3, byte 12"),
    "empty": (articles, b"", r":1\)"),
    "blank": (sentences, b" \n\n", r":1\)"),
    "UTF-16": (one_document, "one".encode("utf-16-le"), r":1, byte 1"),
    "too short": (last_twentieth, b"x" * 199, r"199 bytes, but the corpus has 200"),
    "Latin-1 at the end": (last_twentieth, b"x" * 195 + b"\xe9 abc", r"byte 195"),
    "no UTF-8 at all": (last_twentieth, b"\x80" * 200, r"byte 190"),
    "NUL at the end": (last_twentieth, b"x" * 195 + b"\0 abc", r"byte 195"),
    "a damaged archive": (last_twentieth, b"PK\x03\x04" + b"x" * 196, r"damaged archive"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_one_line_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(hutter, "HUTTER_BYTES", 200)
    monkeypatch.setattr(hutter, "HUTTER_TEST_BYTES", 10)
    documents, content, message = BAD[what]
    path = tmp_path / "corpus"
    path.write_bytes(content)
    with pytest.raises(GptkitError, match=message) as failure:
        texts("corpus", documents, path)
    assert failure.value.exit_code == 2
    assert str(path) in str(failure.value)
    assert "\n" not in str(failure.value)


def test_an_archive_of_two_files_is_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "enwik8.zip", "enwik8", "readme")
    with pytest.raises(InputError, match="the archive must hold one file, but holds enwik8, readme"):
        texts("enwik8", last_twentieth, tmp_path / "enwik8.zip")


def test_any_text_takes_files_folders_and_globs_as_pretrain_does(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n{"text": " "}\n{"text": "four"}\n')
    (tmp_path / "c.pdf").write_text("five")
    whole = any_text(str(tmp_path))
    assert [one.fields for one in whole.examples] == [("one two",), ("three",), ("four",)]
    assert len({one.identifier for one in whole.examples}) == 3
    assert any("skipped 1 .pdf" in note for note in whole.notes)
    assert [one.fields for one in any_text(str(tmp_path / "*.txt")).examples] == [("one two",)]
    assert any_text(str(tmp_path / "a.txt")).sha256 != whole.sha256
    (tmp_path / "d.txt").write_text("")
    with pytest.raises(InputError, match="no text in this file"):
        any_text(str(tmp_path / "d.txt"))
