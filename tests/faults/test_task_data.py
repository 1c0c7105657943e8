"""R20: a file of task data of any kind is read by a written rule, or refused in one line that names file and line."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bad_tables import FAULTS, FIELDS, Table, written
from in_process import Ended, complaints, gptkit

from generation_toy import write_model
from gptkit.tasks.reading import load_examples
from gptkit.tasks.table import TASKS

SEED = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def outcome(table: Table, folder: Path, model: Path) -> tuple[str, list[str]]:
    folder.mkdir()
    path = table.write(folder)
    if table.says is None:
        return "read", [] if read_whole(table, folder) else ["other examples"]
    write_good_others(table, folder)
    words = ("finetune", "--task", table.task, "--data", folder, "--model", model, "--out", folder / "run", "--json")
    ended = gptkit(*words, *(("--predict", table.split) if table.split != "train" else ()))
    wrong = complaints(ended)
    if ended.code == 2:
        wrong += misplaced(ended, table, path)
    return "refused", wrong


def misplaced(ended: Ended, table: Table, path: Path) -> list[str]:
    said, where = ended.error["message"], ended.error["where"] or ""
    wrong = [] if (table.says or "") in said else [f"says {said[:200]!r}, not {table.says!r}"]
    right = str(path.parent) in where if table.line == -1 else where.partition(", byte ")[0] == f"{path}{table.place}"
    return wrong if right else [*wrong, f"at {where!r}, not {table.place!r}"]


def write_good_others(table: Table, folder: Path) -> None:
    for split in {"train", "dev"} - {table.split}:
        (folder / f"{split}.jsonl").write_bytes(written([{**row, "label": "1"} for row in table.rows], "jsonl"))


def read_whole(table: Table, folder: Path) -> bool:
    """Say whether a good file is read with all its texts and labels."""
    examples = load_examples(TASKS[table.task], table.split, folder).examples
    found = [[*one.fields[:1], *one.fields[2]] if table.task == "copa" else [*one.fields] for one in examples]
    if found != [[row[name] for name in FIELDS[table.task]] for row in table.rows]:
        return False
    return all(meaning(table.task, row["label"]) == one.label for row, one in zip(table.rows, examples, strict=True))


def meaning(task: str, label: Any) -> float:
    names = {"positive": 1, "negative": 0, "entailment": 0, "not_entailment": 1}
    return names.get(label, float(label) if label not in names else 0)


def test_every_task_file_is_read_by_a_rule_or_refused_in_its_line(
    tmp_path: Path, model: Path, count: Any, figure: Any
) -> None:
    random_ = random.Random(SEED)
    trials = count(2 * len(FAULTS), 30 * len(FAULTS))
    outcomes: Counter[str] = Counter()
    failures = []
    for trial in range(trials):
        fault = FAULTS[trial % len(FAULTS)]
        table = fault(random_)
        came, wrong = outcome(table, tmp_path / str(trial), model)
        outcomes[came] += 1
        if wrong:
            failures.append(f"{fault.__name__} ({trial}, {table.task}, {table.kind}): {'; '.join(wrong)}")
    told = f"{outcomes['read']} read as documented, {outcomes['refused']} refused at file:line, {len(failures)} else"
    figure("R20", "a fault in a .csv, .tsv, .jsonl or .parquet of a task", trials, told, seed=SEED, bound="0 else")
    assert not failures, "\n".join(failures)
