"""The files that CONTRIBUTING.md's table of changes and the Makefile name exist, and so do the names in the table."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "CONTRIBUTING.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="no CONTRIBUTING.md beside the tests")
def test_the_places_of_the_ten_changes_are_there() -> None:
    rows = re.findall(r"^\| (an? .*|something .*) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(rows) == 10
    for change, places in rows:
        quoted = re.findall(r"`([^`]+)`", places)
        paths = [REPOSITORY / name for name in quoted if "/" in name]
        assert [path for path in paths if not path.exists()] == [], change
        files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
        code = "\n".join(file.read_text(encoding="utf-8") for file in files)
        names = [name.rpartition(".")[2] for name in quoted if re.fullmatch(r"[A-Za-z_.]+", name)]
        assert [name for name in names if not re.search(rf"\b{name}", code)] == [], change


@pytest.mark.skipif(not (REPOSITORY / "Makefile").is_file(), reason="no Makefile beside the tests")
def test_the_tests_that_the_makefile_names_exist() -> None:
    command = ["make", "-s", "--eval", "print: ; @echo $(NUMERIC)", "print"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    assert len(names) > 10
    assert [name for name in names if not (REPOSITORY / name).exists()] == []
