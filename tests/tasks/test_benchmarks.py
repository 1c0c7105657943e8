"""A benchmark is its file: what is dropped into tasks/benchmarks/ is a task, an evaluation and a name, with no list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gptkit.scoring.measures import MEASURES
from gptkit.tasks.table import EVALUATIONS, KINDS, kind_of
from gptkit.tasks.task import Evaluation

TOY = """
from gptkit.scoring.choices import ChoiceProtocol, ending_pairs, total
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import Columns, Source, Task

COLUMNS = Columns(("story", (), ("left", "right")), "answer", ("l", "r"))
TOY = Task("toy", "multiple-choice", "nowhere", {"test": (Source(("toy.tsv",), "tsv", COLUMNS),)}, choices=2)
SUM = ChoiceProtocol("sum", "the sum", chance=1 / 2, pairs=ending_pairs, score=total)
BENCHMARKS = (TOY, zero_shot(TOY, "test", SUM))
"""
# Run in a process of its own, for the table is made once.
ASK = """
import json, sys
from gptkit.tasks import benchmarks
benchmarks.__path__.append(sys.argv[1])
from gptkit.tasks.table import TASKS, find_evaluation, find_task, kind_of, names_of_evaluations
row = find_evaluation("toy/sum")
examples = row.load(sys.argv[1]).examples
heavy = [name for name in ("torch", "transformers", "tokenizers", "datasets", "pyarrow") if name in sys.modules]
print(json.dumps([
    find_task("toy").name, [name for name in TASKS if name in ("breaking-nli", "toy", "demo-cloze")],
    "toy/sum" in names_of_evaluations(),
    kind_of(row) == "choices", [one.label for one in examples], examples[0].fields, heavy,
]))
"""


def test_a_new_benchmark_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "toy.tsv").write_text("story\tleft\tright\tanswer\nIt fell.\tup\tdown\tr\nWhy?\tso\tno\tl\n")
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    in_order = ["breaking-nli", "toy", "demo-cloze"]  # others may stand between them
    assert json.loads(done.stdout) == ["toy", in_order, True, True, [1, 0], ["It fell.", "", ["up", "down"]], []]


def test_evaluations_stand_by_what_the_model_is_asked_for() -> None:
    kinds = {name: kind_of(row) for name, row in EVALUATIONS.items()}
    assert list(kinds.values()) == sorted(kinds.values(), key=KINDS.index)
    assert next(iter(kinds)) == "perplexity"
    assert {kinds[name] for name in ("perplexity", "1bw", "text8")} == {"texts"}
    assert {kinds[name] for name in ("lambada", "cola", "demo-cloze")} == {"choices"}
    assert {kinds[name] for name in ("coqa", "cnn-dm", "wmt14-fr-en")} == {"written answers"}


@pytest.mark.parametrize("row", EVALUATIONS.values(), ids=EVALUATIONS)
def test_an_evaluation_holds_together(row: Evaluation) -> None:
    names = [protocol.name for protocol in row.protocols]
    assert len(set(names)) == len(names)
    for protocol in row.protocols:
        assert set(protocol.measures) <= set(MEASURES)
        for figure in protocol.published:
            assert figure.measure in protocol.measures
            assert figure.source
