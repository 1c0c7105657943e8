from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptkit.errors import InputError, OutOfResources
from gptkit.system import files
from gptkit.system.cache import cache_directory, cached_file, verified_facts
from gptkit.system.files import HashedFile


def build(path: Path, content: bytes = b"content") -> dict[str, Any]:
    def write(file: HashedFile) -> dict[str, Any]:
        file.write(content)
        return {"note": 1}

    return cached_file(path, write, need=lambda file: 5_000_000)


def test_a_file_is_made_once_and_vouched_for(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.bin"
    facts = build(path)
    assert facts == {"note": 1, "size": 7, "sha256": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"}
    assert build(path, b"other") == facts
    assert path.read_bytes() == b"content"
    assert sorted(os.listdir(path.parent)) == ["x.bin", "x.bin.json"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "no facts", "cut facts", "foreign facts"])
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    path, facts = tmp_path / "x.bin", tmp_path / "x.bin.json"
    build(path)
    match damage:
        case "flip":
            path.write_bytes(b"cOntent")
        case "truncate":
            path.write_bytes(b"cont")
        case "remove":
            path.unlink()
        case "no facts":
            facts.unlink()
        case "cut facts":
            facts.write_text(facts.read_text()[:-9])
        case "foreign facts":
            facts.write_text("[1]")
    assert verified_facts(path) is None
    build(path)
    assert path.read_bytes() == b"content"
    assert verified_facts(path)


@pytest.mark.parametrize("failing", ["write", "sync"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, failing, full)
    with pytest.raises(OutOfResources, match=r"needs about 5\.0 MB") as refusal:
        build(tmp_path / "x.bin")
    assert refusal.value.where == str(tmp_path / "x.bin")
    assert os.listdir(tmp_path) == []


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted(file: HashedFile) -> dict[str, Any]:
        file.write(b"part")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_file(tmp_path / "x.bin", interrupted, need=lambda file: 0)
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="GPTKIT_CACHE"):
        build(tmp_path / "file" / "x.bin")


BUILDER = """
import os, sys, time
from pathlib import Path
from gptkit.system import files
from gptkit.system.cache import cached_file
from gptkit.system.files import HashedFile
def write(file):
    print("building", flush=True)
    file.write(b"half")
    if sys.argv[2] == "die":
        os._exit(9)
    time.sleep(0.5)
    file.write(b"half")
    return {}
cached_file(Path(sys.argv[1]), write, need=lambda file: 0)
print(Path(sys.argv[1]).read_text())
"""


def test_one_of_many_processes_builds_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    def start(fate: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", BUILDER, str(tmp_path / "x.bin"), fate]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    assert start("die").communicate()[0] == "building\n"
    assert verified_facts(tmp_path / "x.bin") is None
    processes = [start("live") for _ in range(3)]
    outputs = [process.communicate()[0] for process in processes]
    assert sorted(outputs) == ["building\nhalfhalf\n", "halfhalf\n", "halfhalf\n"]
    assert sorted(os.listdir(tmp_path)) == ["x.bin", "x.bin.json"]
    assert json.loads((tmp_path / "x.bin.json").read_text())["size"] == 8


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", "~/here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_directory() == tmp_path / "here"
    monkeypatch.delenv("GPTKIT_CACHE")
    assert cache_directory() == tmp_path / "shared" / "gptkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == tmp_path / ".cache" / "gptkit"
