"""A user's own files as programs write them: other separators, quotes, numbers, booleans; what is missing is named."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptkit.errors import InputError, UsageError
from gptkit.system.encodings import text_encoding
from gptkit.tasks.own import read_task
from gptkit.tasks.reading import load_examples, require_named_files, unlabelled_examples
from gptkit.tasks.table import TASKS, find_evaluation

COMMAS = ['one, "two", three', "four, five, six"]
QUOTED = '"like ""this"", he said"'


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def read(folder: Path, labels: str, file: str, content: bytes, more: str = "") -> list[tuple[str, Any]]:
    """Return (text, label) of the examples of a user's task whose only file is this one."""
    folder.joinpath("mine.yaml").write_text(f"format: classification\n{labels}\nsplits: {{train: {file}}}\n{more}")
    folder.joinpath(file).write_bytes(content)
    examples = load_examples(read_task(folder / "mine.yaml"), "train", None).examples
    return [(str(example.fields[0]), example.label) for example in examples]


def rows(*labels: object) -> bytes:
    return "".join(json.dumps({"text": "a", "label": label}) + "\n" for label in labels).encode()


def cells(*labels: object) -> bytes:
    return "".join(["text,label\n", *(f"a,{label}\n" for label in labels)]).encode()


LABELS = {
    "booleans of JSON": ("labels: [false, true]", "t.jsonl", rows(False, True), [0, 1]),
    "booleans of JSON beside quoted names": ('labels: ["false", "true"]', "t.jsonl", rows(True, False), [1, 0]),
    "booleans of JSON beside Python's names": ("labels: [True, False]", "t.jsonl", rows(True, False), [0, 1]),
    "booleans of parquet": ("labels: [false, true]", "t.parquet", parquet(text=["a"], label=[True]), [1]),
    "booleans as pandas writes them": ("labels: [false, true]", "t.csv", cells("True", "False"), [1, 0]),
    "numbers of JSON": ("labels: [0, 1]", "t.jsonl", rows(1, 0, 1.0, "1", "1.0"), [1, 0, 1, 1, 1]),
    "stars": ("labels: [1, 2, 3]", "t.csv", cells(3, "1.0", 2), [2, 0, 1]),
    "floats of parquet": ("labels: [1, 2]", "t.parquet", parquet(text=["a", "a"], label=[2.0, 1.0]), [1, 0]),
    "fractions": ("labels: [0.5, 1.0]", "t.jsonl", rows(0.5, 1, "0.50"), [0, 1, 0]),
    "signs": ("labels: [-1, 1]", "t.csv", cells(-1, 1, "-1.0"), [0, 1, 0]),
    "indices": ("labels: [no, yes]", "t.jsonl", rows("yes", 0, 1.0), [1, 0, 1]),
    "words that look alike": ("labels: [1, one, 1.5]", "t.csv", cells("one", "1.5", "1"), [1, 2, 0]),
}  # fmt: skip


@pytest.mark.parametrize("what", LABELS)
def test_labels_are_read_as_other_programs_write_them(tmp_path: Path, what: str) -> None:
    labels, file, content, expected = LABELS[what]
    assert [label for _, label in read(tmp_path, labels, file, content)] == expected


@pytest.mark.parametrize(
    ("labels", "label", "message"),
    [
        ("labels: [no, yes]", True, "unknown label True .* write one of no, yes"),
        ("labels: [0, 1]", True, "unknown label True .* write one of 0, 1, or change the task's labels"),
        ("labels: [0, 1]", 0.5, "unknown label 0.5"),
        ("labels: [a, b]", 2.0, "unknown label 2.0"),
        ("labels: [a, b]", None, "no label"),
        ("score_range: [0, 5]", "1,234", "'1,234', not a number .* write a number, with a decimal point"),
        ("score_range: [0, 5]", True, "True, not a number"),
    ],
)
def test_a_label_of_another_kind_is_refused_with_what_to_write(
    tmp_path: Path, labels: str, label: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, labels, "t.jsonl", rows(label))


def test_scores_may_have_a_decimal_comma(tmp_path: Path) -> None:
    content = b"text;label\na;2,0\nb;4,25\nc;3\n"
    assert [score for _, score in read(tmp_path, "score_range: [0, 5]", "t.csv", content)] == [2.0, 4.25, 3.0]


def test_rows_to_predict_need_no_labels_whatever_their_split_is_called(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "format: classification\nlabels: [a, b]\nsplits: {neu: neu.csv, dev: dev.csv}\n"
        "columns: {text: Nachricht, label: Art}\n"
    )
    task = read_task(tmp_path / "mine.yaml")
    for content in ("Nr;Nachricht\n1;one\n", "Nachricht;Art\none;\n"):
        (tmp_path / "neu.csv").write_text(content)
        (tmp_path / "dev.csv").write_text(content)
        assert [example.label for example in load_examples(task, "neu", None).examples] == [None]
        assert [example.fields for example in unlabelled_examples(task, tmp_path / "neu.csv")] == [("one",)]
        with pytest.raises(InputError, match=r"no (column 'Art'|label) .*gptkit predict --inputs") as refusal:
            load_examples(task, "dev", None)
        assert "Nachricht" not in str(refusal.value.fix)


def test_a_null_of_pandas_is_no_label(tmp_path: Path) -> None:
    content = parquet(text=["a", "b"], label=pa.array([1.0, float("nan")]))
    with pytest.raises(InputError, match="no label"):
        read(tmp_path, "labels: [0, 1]", "t.parquet", content)


TABLES = {
    "semicolons": ("t.csv", "text;label\none, two;a\n\"three; four\";b\n", ["one, two", "three; four"]),
    "bars": ("t.csv", 'text|label\none, two|a\n"a ""three"" | four"|b\n', ["one, two", 'a "three" | four']),
    "tabs in a .csv": ("t.csv", "text\tlabel\none; two\ta\nthree\tb\n", ["one; two", "three"]),
    "commas": ("t.csv", 'text,label\n"one;\ntwo",a\nthree;,b\n', ["one;\ntwo", "three;"]),
    "lone CR": ("t.csv", "text,label\rone,a\rtwo,b\r", ["one", "two"]),
    "CR CR LF": ("t.csv", "text,label\r\r\none,a\r\r\ntwo,b\r\r\n", ["one", "two"]),
    "a quoted .tsv": ("t.tsv", f'text\tlabel\n{QUOTED}\ta\n"two\nlines"\tb\n', ['like "this", he said', "two\nlines"]),
    "a .tsv with every cell quoted": ("t.tsv", '"text"\t"label"\n"one"\t"a"\n"two"\t"b"\n', ["one", "two"]),
    "quotes that are text": ("t.tsv", 'text\tlabel\n"one"\ta\nsay ""two"" now\tb\n', ['"one"', 'say ""two"" now']),
    "one cell with other quotes": ("t.tsv", f'text\tlabel\n{QUOTED}\ta\n5" long\tb\n', [QUOTED, '5" long']),
    "upper case": ("T.CSV", "text,label\none,a\ntwo,b\n", ["one", "two"]),
    "Excel's first line": ("t.csv", 'sep=;\r\ntext;label\r\n"one, ""two"", three";a\r\nfour, five, six;b\r\n', COMMAS),
    "two files joined": ("t.csv", "\ufeff\ufefftext,label\none,a\n\ufefftwo,b\n", ["one", "two"]),
}  # fmt: skip


@pytest.mark.parametrize("what", TABLES)
def test_tables_are_read_as_other_programs_write_them(tmp_path: Path, what: str) -> None:
    file, content, texts = TABLES[what]
    assert read(tmp_path, "labels: [a, b]", file, content.encode()) == list(zip(texts, [0, 1], strict=True))


def test_blank_rows_at_the_end_of_a_table_are_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("format: classification\nlabels: [a, b]\n")
    (tmp_path / "dev.csv").write_text("text;label\none;a\ntwo;b\n;\n ;\n;\n")
    found = load_examples(read_task(tmp_path / "mine.yaml"), "dev", tmp_path)
    assert [example.fields[0] for example in found.examples] == ["one", "two"]
    assert found.notes == (f"{tmp_path}/dev.csv: skipped 3 blank row(s) at the end",)
    (tmp_path / "dev.csv").write_text("text;label\none;a\n;\ntwo;b\n")
    with pytest.raises(InputError, match=r"'text' is empty \(.*dev.csv:3\)|no label"):
        load_examples(read_task(tmp_path / "mine.yaml"), "dev", tmp_path)


def test_lines_are_counted_from_excels_first_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        read(tmp_path, "labels: [a, b]", "t.csv", b"sep=;\ntext;label\none;c\n")
    assert refusal.value.where == f"{tmp_path}/t.csv:3"


def test_a_comma_in_a_column_s_name_separates_nothing_where_there_are_more_semicolons(tmp_path: Path) -> None:
    content = b"text;label;date, time\none, two;a;1\n"
    found = read(tmp_path, "labels: [a, b]", "t.csv", content, "columns: {text: text, label: label}\n")
    assert found == [("one, two", 0)]


def test_the_cure_for_another_column_makes_the_file_readable(tmp_path: Path) -> None:
    content = b"date,text,label\n1,one,a\n"
    with pytest.raises(InputError, match="unknown column 'date'") as refusal:
        read(tmp_path, "labels: [a, b]", "t.csv", content)
    assert "name them in the YAML of your own task: columns: {text: text, label: label}" in str(refusal.value.fix)
    assert read(tmp_path, "labels: [a, b]", "t.csv", content, "columns: {text: text, label: label}") == [("one", 0)]


@pytest.mark.parametrize(
    ("header", "cure"),
    [
        (
            "a nice film,a",
            "write into the task's file: columns: {text: a nice film, label: a}; or name them text, label in the first "
            "line",
        ),
        ("text:label", "name them text, label in the first line, separated by commas, semicolons, tabs or |"),
    ],
)
def test_a_table_without_a_header_is_told_to_name_its_columns_there(tmp_path: Path, header: str, cure: str) -> None:
    with pytest.raises(InputError, match="no column 'text'") as refusal:
        read(tmp_path, "labels: [a, b]", "t.csv", f"{header}\n".encode())
    assert refusal.value.fix == cure


def test_a_misspelled_column_of_the_task_may_be_corrected_in_either_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'reveiw'") as refusal:
        read(tmp_path, "labels: [a, b]", "t.csv", b"review,label\none,a\n", "columns: {text: reveiw}\n")
    assert refusal.value.fix == "write review for it under columns in the task's file, or add the column"


def test_quotes_of_the_authors_files_are_text(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(f'index\tsentence1\tsentence2\tlabel\n0\t{QUOTED}\t"b"\tentailment\n')
    [example] = load_examples(TASKS["rte"], "train", tmp_path).examples
    assert example.fields == (QUOTED, '"b"')


@pytest.mark.parametrize(("file", "encoding"), [("t.csv", "gb18030"), ("t.tsv", "utf-16"), ("t.jsonl", "shift_jis")])
def test_every_table_is_read_in_the_encoding_given(tmp_path: Path, file: str, encoding: str) -> None:
    text = "日本語、です"
    row = {"t.csv": f"text,label\r\n{text},a\r\n", "t.tsv": f"text\tlabel\r\n{text}\ta\r\n"}
    content = row.get(file, json.dumps({"text": text, "label": "a"}, ensure_ascii=False))
    with text_encoding(encoding):
        assert read(tmp_path, "labels: [a, b]", file, content.encode(encoding)) == [(text, 0)]


def test_a_file_that_the_task_names_is_never_replaced_by_another(tmp_path: Path) -> None:
    task = tmp_path / "mine.yaml"
    task.write_text("format: classification\nlabels: [a, b]\nsplits: {train: train.csv, dev: dev2.csv, test: no.csv}\n")
    for name in ("train.csv", "dev.csv", "dev.jsonl"):
        (tmp_path / name).write_text("text,label\none,a\n")
    for data in (None, str(tmp_path)):
        with pytest.raises(InputError, match=r"looked for dev2\.csv in"):
            load_examples(read_task(task), "dev", data)
        with pytest.raises(InputError, match=r"'dev' of mine: looked for dev2\.csv in"):
            require_named_files(read_task(task), data)
    (tmp_path / "one.csv").touch()
    with pytest.raises(InputError) as refusal:
        require_named_files(read_task(task), None)
    assert refusal.value.fix == "did you mean dev.csv?"
    (tmp_path / "DEV2.csv").write_text("text,label\none,a\n")
    with pytest.raises(InputError, match=r"'test' of mine: looked for no\.csv in") as refusal:
        require_named_files(read_task(task), None)
    assert refusal.value.fix == "check the path, or add the files"


@pytest.mark.parametrize(
    ("file", "cure"),
    [
        ("train.csv.gz", "decompress the .gz"),
        ("train.json", "write a .json array as .jsonl"),
        ("Train.XLSX", "save an .xlsx as CSV"),
        ("train.txt", "rename a .txt with tabs to .tsv"),
        ("train.parquet/part-0.parquet", "write a .parquet folder as one file"),
    ],
)
def test_files_of_another_kind_are_found_with_what_to_do_with_them(tmp_path: Path, file: str, cure: str) -> None:
    (tmp_path / "mine.yaml").write_text("format: classification\nlabels: [a, b]\n")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    (tmp_path / "package.json").touch()  # of something else
    with pytest.raises(InputError, match=f"found .*{file.split('/')[0]}") as refusal:
        load_examples(read_task(tmp_path / "mine.yaml"), "train", None)
    assert str(refusal.value.fix).startswith(f"check the path, or add the files; {cure}")
    assert str(refusal.value.fix).count(";") == 1


def test_a_task_s_yaml_without_a_split_is_told_how_to_add_it(tmp_path: Path) -> None:
    read(tmp_path, "labels: [a, b]", "t.csv", cells("a"))
    with pytest.raises(UsageError, match="no split 'dev'") as refusal:
        load_examples(read_task(tmp_path / "mine.yaml"), "dev", None)
    assert refusal.value.fix == "add dev: FILE to the splits of its YAML, with rows that are not in train"
    with pytest.raises(UsageError, match="no split 'tset'") as refusal:
        load_examples(read_task(tmp_path / "mine.yaml"), "tset", None)
    assert refusal.value.fix == "use train"


@pytest.mark.parametrize(
    ("format", "header", "row", "line"),
    [
        ("classification", "Betreff;Text;Kategorie", "Hi;a long text;a", "columns: {text: Text, label: Kategorie}"),
        ("classification", "Nr;Art;Inhalt", "1;b;a long text", "columns: {text: Inhalt, label: Art}"),
        ("entailment", "id;A;B;Urteil", "7;one;two;b", "columns: {premise: A, hypothesis: B, label: Urteil}"),
    ],
)
def test_the_line_for_the_yaml_is_made_of_the_file_s_columns_and_reads_it(
    tmp_path: Path, format: str, header: str, row: str, line: str
) -> None:
    task = tmp_path / "mine.yaml"
    text = f"format: {format}\nlabels: [a, b]\nsplits: {{train: t.csv}}\n"
    task.write_text(text)
    (tmp_path / "t.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError) as refusal:
        load_examples(read_task(task), "train", None)
    assert f"write into the task's file: {line}; or" in str(refusal.value.fix)
    task.write_text(text + line)
    assert len(load_examples(read_task(task), "train", None).examples) == 1


def test_the_line_for_choices_lists_the_columns_that_are_left(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("format: multiple-choice\nsplits: {train: t.csv}\n")
    (tmp_path / "t.csv").write_text("Lage,A,B,Antwort\na long story,one,two,1\n")
    with pytest.raises(InputError, match=r"columns: \{context: Lage, choices: \[A, B\], label: Antwort\}"):
        load_examples(read_task(tmp_path / "mine.yaml"), "train", None)


EMPTY = {
    "t.csv": b"text,label\n,a\none,b\n,b\ntwo,c\n",
    "t.jsonl": "".join(
        json.dumps({"text": text, "label": label}) + "\n"
        for text, label in zip(["x", "", "x", "", "x"], "aabbc", strict=True)
    ).encode(),
}


@pytest.mark.parametrize("file", EMPTY)
def test_all_faulty_rows_of_a_file_are_told_at_once(tmp_path: Path, file: str) -> None:
    with pytest.raises(InputError) as refusal:
        read(tmp_path, "labels: [a, b]", file, EMPTY[file])
    told = "'text' is empty in 2 rows: lines 2, 4; 1 other faulty row(s), the first in line 5: unknown label 'c'"
    assert refusal.value.message == told
    assert str(refusal.value.where).endswith(f"{file}:2")


def test_data_may_be_the_file_of_a_split_of_an_own_task(tmp_path: Path) -> None:
    columns = "columns: {text: Text, label: Art}"
    read(tmp_path, "labels: [a, b]", "t.csv", b"Text,Art\none,a\n", columns)
    (tmp_path / "other.csv").write_text("Text;Art\ntwo;b\n")
    task = read_task(tmp_path / "mine.yaml")
    [example] = load_examples(task, "train", tmp_path / "other.csv").examples
    assert (example.fields, example.label) == (("two",), 1)
    with pytest.raises(InputError, match="not a folder") as refusal:  # fine-tuning reads two splits: two files
        require_named_files(task, str(tmp_path / "other.csv"))
    assert refusal.value.fix == "pass the folder with t.csv"


def test_a_task_s_yaml_is_not_named_as_the_source_of_its_data(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("format: classification\nlabels: [a, b]\n")
    carried = replace(read_task(tmp_path / "mine.yaml"), folder=None)
    with pytest.raises(UsageError, match=r"a folder with dev\.jsonl, dev\.csv, dev\.tsv, dev\.parquet$"):
        load_examples(carried, "dev", None)


def test_lambada_reads_the_authors_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "lambada_test_plain_text.txt"
    path.write_bytes(b"`` hand me the twine , '' he said\r\nshe looked at the river \r\n")
    evaluation = find_evaluation("lambada")
    assert evaluation is not None
    for data in (tmp_path, path):
        found = evaluation.load(str(data))
        assert [example.fields[0] for example in found.examples] == [
            "`` hand me the twine , '' he said",
            "she looked at the river",
        ]
        assert "not the text that GPT-2's published figures are of" in found.notes[0]
        assert found.is_variant


def test_microsofts_mrpc_needs_glues_list_of_dev_pairs(tmp_path: Path) -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    (tmp_path / "msr_paraphrase_train.txt").write_text(header + "1\t11\t12\ta\tb\n0\t21\t22\tc\td\n")
    with pytest.raises(InputError, match=r"no dev_ids\.tsv: GLUE's list of the 408 dev pairs") as refusal:
        load_examples(TASKS["mrpc"], "dev", tmp_path)
    assert "mrpc_dev_ids.tsv" in str(refusal.value.fix)
    (tmp_path / "mrpc_dev_ids.tsv").write_text("21\t22\n")
    for split, label in (("train", 1), ("dev", 0)):
        assert [example.label for example in load_examples(TASKS["mrpc"], split, tmp_path).examples] == [label]
