"""A user's own task."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptkit.errors import InputError, UsageError
from gptkit.tasks import own
from gptkit.tasks.reading import load_examples
from gptkit.tasks.table import find_task


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_the_example_of_the_docstring(tmp_path: Path) -> None:
    shown = str(own.__doc__).partition("\n\n")[2].partition("\n\nWithout")[0]
    task = find_task(write(tmp_path, shown))
    assert (task.name, task.format, task.labels) == ("reviews", "classification", ("negative", "positive"))
    assert (task.target, task.metrics, list(task.splits)) == ("class", ("accuracy", "f1"), ["train", "dev"])
    (tmp_path / "reviews-train.csv").write_text("review,stars,more\ngood,positive,1\nbad,0,2\n")
    loaded = load_examples(task, "train", None)
    assert [(one.fields, one.label) for one in loaded.examples] == [(("good",), 1), (("bad",), 0)]
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    with pytest.raises(InputError, match=r"looked for reviews-train\.csv"):
        load_examples(task, "train", elsewhere)
    (elsewhere / "reviews-train.csv").write_text("review\ngood\n")
    with pytest.raises(InputError, match=r"no column 'stars' .*reviews-train\.csv:1"):
        load_examples(task, "train", elsewhere)


@pytest.mark.parametrize("name", ["评论", "รีวิวหนัง", "समीक्षा", "مراجعة", "Отзывы", "cafe\u0301", "a😀", "می\u200cخواهم"])
def test_names_columns_and_files_in_any_script(tmp_path: Path, name: str) -> None:
    text = (
        f"format: classification\nlabels: [{name}, other]\nsplits: {{{name}: {name}.csv}}\ncolumns: {{text: {name}}}\n"
    )
    task = find_task(write(tmp_path, text, f"{name}.yaml"))
    (tmp_path / f"{name}.csv").write_text(f"{name},label\na,{name}\n", encoding="utf-8")
    assert (task.name, list(task.splits)) == (name, [name])
    assert [(one.fields, one.label) for one in load_examples(task, name, None).examples] == [(("a",), 0)]


def test_an_accent_may_be_composed_in_the_task_and_not_in_the_files_name(tmp_path: Path) -> None:
    task = find_task(write(tmp_path, "format: classification\nlabels: [a, b]\nsplits: {train: caf\u00e9.csv}\n"))
    (tmp_path / "cafe\u0301.csv").write_text("text,label\nx,b\n")
    assert load_examples(task, "train", None).examples[0].label == 1


def test_scores_and_choices(tmp_path: Path) -> None:
    scores = find_task(write(tmp_path, "format: similarity\nscore_range: [-1, 1]\n"))
    assert (scores.name, scores.target, scores.metrics) == ("mine", "score", ("pearson", "spearman"))
    (tmp_path / "train.tsv").write_text("first\tsecond\tlabel\na\tb\t-0.5\n")
    assert load_examples(scores, "train", None).examples[0].label == -0.5
    soft = find_task(write(tmp_path, "format: entailment\nscore_range: [0, 5]\ntarget: soft-score\n"))
    assert (soft.target, soft.score_range) == ("soft-score", (0.0, 5.0))
    text = "format: multiple-choice\ncolumns:\n  context: [one, two]\n  choices: [right, wrong]\n  label: gold\n"
    choices = find_task(write(tmp_path, text))
    (tmp_path / "train.csv").write_text("one,two,right,wrong,gold\na,b,c,d,0\n")
    (tmp_path / "train.tsv").unlink()
    assert load_examples(choices, "train", None).examples[0].fields == ("a b", "", ("c", "d"))
    (tmp_path / "train.csv").write_text("one,two,right,wrong,gold\na,b,c,d,0\na,b,c,d,2\n")
    with pytest.raises(InputError, match=r"unknown label 2 .*train\.csv:3"):
        load_examples(choices, "train", None)


def split_of(folder: Path, split: str, rows: range) -> list[object]:
    """Return the texts of a split of a task whose dev and test are fractions of train; each text occurs twice."""
    text = "format: classification\nlabels: [a, b]\nsplits: {dev: 0.2, train: t.csv, test: .1}\n"
    (folder / "t.csv").write_text("text,label\n" + "".join(f"text {n // 2},a\n" for n in rows))
    return [example.fields[0] for example in load_examples(find_task(write(folder, text)), split, None).examples]


def test_fractions_of_train_share_its_rows_by_their_texts(tmp_path: Path) -> None:
    found = {split: split_of(tmp_path, split, range(800)) for split in ("train", "dev", "test")}
    assert sorted(map(str, itertools.chain(*found.values()))) == sorted(f"text {n // 2}" for n in range(800))
    assert not set(found["train"]) & set(found["dev"]) | set(found["dev"]) & set(found["test"])
    sizes = [len(found[split]) / 800 for split in ("train", "dev", "test")]
    assert sizes == pytest.approx([0.7, 0.2, 0.1], abs=0.06)
    assert set(found["dev"]) <= set(split_of(tmp_path, "dev", range(1000)))  # a longer file moves none of them


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ("train: t.csv, dev: 0.0001", r"none of 2 row\(s\) falls into a split of 0.0001"),
        ("train: t.csv, dev: 0.5, test: 0.5", "the fractions leave nothing to train on"),
        ("dev: 0.2", r"unsupported file type: '0.2' .* a fraction of train"),
    ],
)
def test_a_fraction_that_cannot_be_is_refused(tmp_path: Path, splits: str, message: str) -> None:
    (tmp_path / "t.csv").write_text("text,label\none,a\ntwo,b\n")
    path = write(tmp_path, f"format: classification\nlabels: [a, b]\nsplits: {{{splits}}}\n")
    with pytest.raises((InputError, UsageError), match=message):
        load_examples(find_task(path), "dev", None)


def test_f1_of_three_labels_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path, "format: classification\nlabels: [a, b, c]\nmetrics: [f1]\n")
    with pytest.raises(UsageError, match="f1 is that of the second of two labels; choose from accuracy, matthews"):
        find_task(path)


def test_a_question_may_be_empty(tmp_path: Path) -> None:
    task = find_task(write(tmp_path, "format: multiple-choice\n"))
    (tmp_path / "train.csv").write_text("context,question,choice1,choice2,label\na,,c,d,0\na,b?,c,d,1\n")
    examples = load_examples(task, "train", None).examples
    assert [example.fields[1] for example in examples] == ["", "b?"]


@pytest.mark.parametrize("labels", ["[false, true]", "[True, False]", "['0', true, false]"])
def test_booleans_are_the_labels_true_and_false(tmp_path: Path, labels: str) -> None:
    task = find_task(write(tmp_path, f"format: classification\nlabels: {labels}\n"))
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": false}\n{"text": "b", "label": true}\n')
    pq.write_table(pa.table({"text": ["a", "b"], "label": [False, True]}), tmp_path / "dev.parquet")
    for split in ("train", "dev"):
        examples = load_examples(task, split, None).examples
        assert [task.labels[int(one.label or 0)].lower() for one in examples] == ["false", "true"]
    other = find_task(write(tmp_path, "format: classification\nlabels: [no, yes]\n"))
    with pytest.raises(InputError, match=r"unknown label False.* write one of no, yes"):
        load_examples(other, "train", None)


def test_a_label_may_be_composed_or_decomposed_unicode(tmp_path: Path) -> None:
    task = find_task(write(tmp_path, "format: classification\nlabels: [rat\u00e9, r\u00e9ussi]\n"))
    (tmp_path / "train.csv").write_text("text,label\na,re\u0301ussi\n", encoding="utf-8")
    assert [one.label for one in load_examples(task, "train", None).examples] == [1]


def test_other_column_names_are_told_of_columns_in_the_tasks_file(tmp_path: Path) -> None:
    task = find_task(write(tmp_path, "format: classification\nlabels: [no, yes]\n"))
    (tmp_path / "train.csv").write_text("评论,标签\na,no\n", encoding="utf-8")
    line = r"write into the task's file: columns: \{text: 评论, label: 标签\}; or name them text, label"
    with pytest.raises(InputError, match=rf"no column 'text' .*{line}"):
        load_examples(task, "train", None)


FAULTS: list[tuple[str, int, str]] = [
    ("format: clasification\n", 1, "did you mean 'classification'"),
    ("# mine\nformat: entailment\nlabel: [a, b]\n", 3, "did you mean 'labels'"),
    ("format: entailment\nformat: entailment\n", 2, "duplicate key"),
    ("labels: [a, b]\n", 1, "no 'format'"),
    ("format: entailment\n", 1, "for classes write labels: [no, yes]; for scores score_range: [0, 5]"),
    ("format: entailment\nlabels: [a]\n", 2, "two or more"),
    ("format: entailment\nlabels: [a, a]\n", 2, "lists a value twice"),
    ("format: entailment\nlabels: a\n", 2, "not a list"),
    ("format: entailment\nlabels: [a, [b]]\n", 2, "not one word"),
    ("format: entailment\nlabels: [a, b]\nscore_range: [0, 1]\n", 3, "and no score_range"),
    ("format: similarity\nscore_range: [1, 0]\n", 2, "a lower and an upper bound"),
    ("format: similarity\nscore_range: [0, .inf]\n", 2, "a lower and an upper bound"),
    ("format: similarity\nscore_range: [0, 4]\ntarget: soft-score\n", 2, "from 0 to 5"),
    ("format: multiple-choice\nlabels: [a, b]\n", 2, "has no labels"),
    ("format: multiple-choice\nchoices: 1\n", 2, "at least 2"),
    ("format: entailment\nlabels: [a, b, c]\nmetrics: [f1]\n", 3, "accuracy, matthews"),
    ("format: entailment\nlabels: [a, b]\ncolumns:\n  premise: p\n", 4, "no column for 'hypothesis'"),
    ("format: entailment\nlabels: [a, b]\ncolumns:\n  premis: p\n", 4, "did you mean 'premise'"),
    ("format: entailment\nlabels: [a, b]\nsplits:\n  train: a.txt\n", 4, "unsupported file type"),
    ("format: entailment\nlabels: [a, b]\nsplits: train.csv\n", 3, "no `key: value` lines"),
    ("format: entailment\nlabels: [a, b]\nname: rte\n", 3, "is a built-in task"),
    ("format: entailment\nlabels: [a, b]\nname: ../x\n", 3, "not a valid name for a task"),
    ("format: entailment\nlabels: [a, b]\nname: 评 论\n", 3, "not a valid name for a task"),
    ('format: entailment\nlabels: [a, b]\nname: "a\\u202eb"\n', 3, "not a valid name for a task"),
    ("format: entailment\nlabels: [a, b\n", 3, "not YAML"),
    ("- a\n", 1, "no `key: value` lines"),
    ("", 1, "no 'format' in the task"),
]


@pytest.mark.parametrize(("text", "line", "part"), FAULTS)
def test_a_fault_is_named_by_file_and_line(tmp_path: Path, text: str, line: int, part: str) -> None:
    with pytest.raises(UsageError) as refusal:
        find_task(write(tmp_path, text))
    assert refusal.value.where == f"{tmp_path}/mine.yaml:{line}"
    assert part in str(refusal.value)


def test_a_task_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="file not found"):
        find_task(str(tmp_path / "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"format: entailment\nname: caf\xe9\n")
    with pytest.raises(UsageError, match=r"not valid UTF-8: 0xe9 .*latin\.yaml:2"):
        find_task(str(tmp_path / "latin.yaml"))


WORDS = st.sampled_from([*own.KEYS, ": ", "\n", "  ", "[", "]", "- ", "a", "0", "entailment", "&x", "*x", "!!int"])


@given(
    content=st.one_of(st.binary(max_size=100), st.lists(WORDS, max_size=30).map(lambda words: "".join(words).encode()))
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_a_task_or_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any.yaml").write_bytes(content)
    try:
        found = find_task(str(tmp_path / "any.yaml")).format
    except UsageError as error:
        found = error.fix or ""
    assert found
