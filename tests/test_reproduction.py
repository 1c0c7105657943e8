"""docs/reproduction.md is what its script writes; every number in it has a source, and a command that exists."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gptkit.cli import app
from gptkit.cli.main import main
from gptkit.scoring.protocols import Published
from gptkit.tasks.table import EVALUATIONS, TASKS, find_evaluation

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "benchmarks" / "reproduction.py"
PAGE = REPOSITORY / "docs" / "reproduction.md"

pytestmark = pytest.mark.skipif(not (SCRIPT.is_file() and PAGE.is_file()), reason="no page beside the tests")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The cells of each number on the page, by column."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        header, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        found += [dict(zip(header, line, strict=True)) for line in lines if header[0] == "number"]
    return found


def test_the_page_is_what_the_script_writes(script: dict[str, Any]) -> None:
    assert PAGE.read_text(encoding="utf-8") == script["page"](), f"run python {SCRIPT.relative_to(REPOSITORY)}"


def test_every_row_has_a_number_a_source_a_state_and_a_command(rows: list[dict[str, str]]) -> None:
    assert len(rows) > 170
    for row in rows:
        assert re.fullmatch(r"[\d,.e-]+", row["published"]), row
        assert re.match(r"GPT-[12] paper, (section|table|figure) \d|openai/", row["source"]), row
        assert re.match(r"the same$|run$|partly: \w|not run: \w", row["state"]), row
        assert bool(row.get("ours")) != row["state"].startswith("not run"), row
        assert "gptkit" in row["command"], row


def published_in_the_code() -> Iterator[tuple[str, Published]]:
    yield from ((name, task.published) for name, task in TASKS.items() if task.published and name != "stsb-soft")
    for name, evaluation in EVALUATIONS.items():
        for protocol in evaluation.protocols:
            yield from ((f"{name}/{protocol.name}", figure) for figure in protocol.published)


def test_no_figure_of_the_papers_in_the_code_is_missing(script: dict[str, Any], rows: list[dict[str, str]]) -> None:
    listed = {(row["number"].partition(", ")[0], row["published"], row["source"]) for row in rows}
    figures = [
        (name, figure)
        for name, figure in published_in_the_code()
        if re.match("GPT-[12] paper", figure.source) and not figure.model.startswith("best published")
    ]
    assert len(figures) > 70
    for name, figure in figures:
        is_of_gpt2 = figure.source.startswith("GPT-2") and figure.model.startswith("GPT-2")
        cell = f"{figure.model}: {name}" if is_of_gpt2 else name
        source = ", ".join(figure.source.split(", ")[:2])
        assert (cell, script["scaled"](figure.measure, figure.value), source) in listed


def test_every_command_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line parses, its task exists, and so do the recipes that it reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "make_app", cache(app.make_app))
    page = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"`((?:gptkit|for|python -c) [^`]*)`", page) + re.findall(
        r"^ {4}(gptkit .*)$", page, re.MULTILINE
    )
    assert main(["recipes", "cp", "pretrain/gpt1", "gpt1.yaml"]) == 0
    Path("gpt1.yaml").write_text(f"{Path('gpt1.yaml').read_text()}snapshots: 20\n")
    for line in sorted({*lines}, key=lambda line: "--help-all" in line):  # last, as it changes the app
        loop = re.fullmatch(r"for (\w+) in (.*); do (.*); done", line)
        values = loop[2].split() if loop else [""]
        for command in [loop[3].replace(f"${loop[1]}", value) if loop else line for value in values]:
            program, *words = shlex.split(command.partition(" &&")[0])
            if program == "python":
                monkeypatch.setattr(sys, "argv", ["-c"])
                exec(words[1], {})
                continue
            assert isinstance(app.parse(words), app.Request | int), command
            for task in [word for before, word in pairwise(words) if before == "--task"]:
                assert task in TASKS if words[0] == "finetune" else find_evaluation(task), command
