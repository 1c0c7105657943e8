"""gptkit tasks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gptkit.cli.main import main
from gptkit.tasks.table import EVALUATIONS, TASKS


def test_every_task_is_listed_with_what_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tasks"]) == 0
    out, err = capsys.readouterr()
    assert all(len(line) <= 80 for line in out.partition("\ntask  ")[0].splitlines())
    lines = {name: [line for line in out.splitlines() if line.split()[0] == name] for name in TASKS}
    assert all(len(found) == 2 + (name in EVALUATIONS) for name, found in lines.items())
    for row in EVALUATIONS.values():
        assert re.search(rf"^{row.name} +{', '.join(protocol.name for protocol in row.protocols)}$", out, re.MULTILINE)
    for part in ("similarity", "pearson", "5,749", "1,500", "1,379", "82.0", "gluebenchmark.com"):
        assert part in " ".join(lines["stsb"])
    assert err == "next: gptkit pretrain\n"  # which finetune needs first


def test_json_has_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert list(rows) == list(TASKS)
    assert rows["rte"]["sizes"] == {"train": 2490, "dev": 277, "test": 3000}
    assert rows["rte"]["published"]["no_pretraining"] == 53.8
    assert (rows["rte"]["hub"], rows["demo-cloze"]["hub"]) == ("hf:nyu-mll/glue:rte", None)
