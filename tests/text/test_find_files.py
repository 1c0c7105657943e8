from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from gptkit.errors import InputError
from gptkit.text.readers import find_files

Form = Literal["NFC", "NFD"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.TXT", "notes.md", "sub/c.jsonl", "sub/deep/d.txt.gz", ".hidden/e.txt", ".f.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
    return tmp_path


def found(*arguments: object) -> list[str]:
    return [file.path.name for file in find_files(list(map(str, arguments)))[0]]


def test_directories_are_searched_throughout_sorted_and_each_file_counts_once(folder: Path) -> None:
    assert found(folder) == ["a.TXT", "b.txt", "c.jsonl", "d.txt.gz"]
    assert found(folder / "sub", folder, folder / "b.txt", folder / "link.txt") == found(folder)
    assert find_files([str(folder)])[1] == [
        "skipped 1 .md file(s): gptkit reads .txt, .txt.gz, .jsonl, .jsonl.gz, .parquet"
    ]


def test_globs(folder: Path) -> None:
    assert found(folder / "*.txt") == ["b.txt"]
    assert found(folder / "sub" / "**" / "*.gz") == ["d.txt.gz"]
    assert found(folder / "s*") == found(folder)  # sub/up leads to all


def test_a_named_file_keeps_its_name_with_glob_characters(folder: Path) -> None:
    (folder / "a[1].txt").write_text("text")
    assert found(folder / "a[1].txt") == ["a[1].txt"]


@pytest.mark.parametrize(("on_disk", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_is_found_whichever_way_its_accents_are_encoded(tmp_path: Path, on_disk: Form, typed: Form) -> None:
    (tmp_path / unicodedata.normalize(on_disk, "café.txt")).write_text("text")
    assert found(tmp_path / unicodedata.normalize(typed, "café.txt")) == [unicodedata.normalize(on_disk, "café.txt")]


def test_relative_paths_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert [file.path for file in find_files(["b.txt"])[0]] == [folder / "b.txt"]


def test_what_leads_nowhere(folder: Path) -> None:
    (folder / "empty").mkdir()
    for argument, message in (
        (folder / "missing.txt", "file not found"),
        (folder / "*.parquet", "no file matches"),
        (folder / "empty", "no text file"),
        (folder / "*.md", "no text file"),
        ("", "not a path"),
        ("a\0b", "not a path"),
        ("x" * 5000, "file not found"),
    ):
        with pytest.raises(InputError, match=message):
            found(argument)


def test_an_unreadable_directory_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def forbidding(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    with pytest.raises(InputError, match="directory cannot be read") as refusal:
        found(folder)
    assert refusal.value.where == str(folder / "sub" / "deep")


@pytest.mark.parametrize(("argument", "is_hub_name"), [("wikitext", True), ("novel.txt", False), ("/no/corpus", False)])
def test_only_what_may_be_a_hub_data_set_is_said_to_be_one(argument: str, is_hub_name: bool) -> None:
    with pytest.raises(InputError, match="file not found") as refusal:
        find_files([argument])
    assert (f"write hf:{argument}" in str(refusal.value.fix)) == is_hub_name
