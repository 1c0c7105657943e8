"""Readers of the authors' files and of generic ones: golden examples, and every fault named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptkit.errors import InputError
from gptkit.tasks.reading import load_examples
from gptkit.tasks.table import TASKS
from gptkit.tasks.task import Loaded

NLI = {"sentence1": "A dog.", "sentence2": "An animal.", "pairID": "p1", "captionID": "c"}
RACE = {
    "article": "It rained.\nWe stayed in.",
    "questions": ["Why?", "Who?"],
    "options": [["a", "b", "c", "d"], ["e", "f", "g", "h"]],
    "answers": ["D", "A"],
    "id": "high1.txt",
}
STORY = "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,RandomFifthSentenceQuiz1,"
STORY += "RandomFifthSentenceQuiz2,AnswerRightEnding\n"
COPA = {"premise": "It fell.", "choice1": "x", "choice2": "y", "idx": 4}


def row(*cells: str) -> str:
    return "\t".join(cells) + "\n"


def dump(*rows: Any) -> str:
    return "".join(json.dumps(one) + "\n" for one in rows)


def write(folder: Path, file: str, text: str | bytes) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(folder: Path, task: str, split: str, file: str, text: str | bytes) -> Loaded:
    write(folder, file, text)
    return load_examples(TASKS[task], split, folder)


MRPC_HEADER = row("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
STSB = ("g", "f", "y", "i", "s", "t")
# (task, split, file, text, [(fields, label, line, identifier)])
GOLDEN: list[tuple[str, str, str, str, list[tuple[Any, ...]]]] = [
    ("cola", "train", "train.tsv", row("gj04", "0", "*", 'He "said'), [(('He "said',), 0, 1, "0")]),
    ("cola", "test", "test.tsv", row("index", "sentence") + row("5", "Go."), [(("Go.",), None, 2, "5")]),
    ("sst2", "dev", "dev.tsv", row("sentence", "label") + row("good ", "1"), [(("good ",), 1, 2, "0")]),
    ("sst2", "test", "test.tsv", row("index", "sentence") + row("0", "good"), [(("good",), None, 2, "0")]),
    ("mrpc", "dev", "dev.tsv", "\ufeff" + MRPC_HEADER + row("1", "7", "8", '"a', "b"), [(('"a', "b"), 1, 2, "0")]),
    (
        "mrpc",
        "test",
        "test.tsv",
        row("index", "#1 ID", "#2 ID", "#1 String", "#2 String") + row("0", "7", "8", "a", "b"),
        [(("a", "b"), None, 2, "0")],
    ),
    ("mrpc", "test", "msr_paraphrase_test.txt", MRPC_HEADER + row("0", "7", "8", "a", "b"),
     [(("a", "b"), 0, 2, "7 8")]),
    (
        "stsb",
        "train",
        "train.tsv",
        row("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score")
        + row("3", *STSB, "a", "b", "2.5"),
        [(("a", "b"), 2.5, 2, "3")],
    ),
    (
        "stsb",
        "dev",
        "sts-dev.csv",
        row("g", "f", "y", "1", "5.000", 'a "b', "c") + row("g", "f", "y", "2", "0", "d", "e", "url", "url"),
        [(('a "b', "c"), 5.0, 1, "0"), (("d", "e"), 0.0, 2, "1")],
    ),
    ("qnli", "dev", "dev.tsv", row("index", "question", "sentence", "label") + row("0", "q?", "s", "not_entailment"),
     [(("q?", "s"), 1, 2, "0")]),
    ("wnli", "dev", "dev.tsv", row("index", "sentence1", "sentence2", "label") + row("0", "a", "b", "1"),
     [(("a", "b"), 1, 2, "0")]),
    (
        "mnli",
        "dev-mismatched",
        "dev_mismatched.tsv",
        row("index", "promptID", "genre", "sentence1", "sentence2", "label1", "gold_label")
        + row("9", "31193n", "slate", "a", "b", "neutral", "contradiction"),
        [(("a", "b"), 2, 2, "9")],
    ),
    ("mnli", "test", "test_matched.tsv", row("index", "sentence1", "sentence2") + row("0", "a", "b"),
     [(("a", "b"), None, 2, "0")]),
    ("snli", "dev", "snli_1.0_dev.jsonl", dump({"gold_label": "-"} | NLI, {"gold_label": "neutral"} | NLI),
     [(("A dog.", "An animal."), 1, 2, "p1")]),
    (
        "snli",
        "dev",
        "snli_1.0_dev.txt",
        row("gold_label", "sentence1", "sentence2", "pairID", "label1", "label2")
        + row("-", "a", "b", "p0", "neutral")
        + row("entailment", "a", "b", "p1"),
        [(("a", "b"), 0, 3, "p1")],
    ),
    ("scitail", "dev", "tsv_format/scitail_1.0_dev.tsv", row('"a', "b", "entails") + row("c", "d", "neutral"),
     [(('"a', "b"), 0, 1, "0"), (("c", "d"), 1, 2, "1")]),
    ("scitail", "dev", "snli_format/scitail_1.0_dev.txt", dump({"gold_label": "neutral"} | NLI),
     [(("A dog.", "An animal."), 1, 1, "0")]),
    ("breaking-nli", "test", "dataset.jsonl", dump({"gold_label": "contradiction", "category": "x"} | NLI),
     [(("A dog.", "An animal."), 2, 1, "p1")]),
    (
        "copa",
        "dev",
        "val.jsonl",
        dump(COPA | {"question": "cause", "label": 1}, COPA | {"question": "effect", "label": 0}),
        [(("It fell.", "What was the cause of this?", ("x", "y")), 1, 1, "4"),
         (("It fell.", "What happened as a result?", ("x", "y")), 0, 2, "4")],
    ),
    ("copa", "test", "test.jsonl", dump(COPA | {"question": "effect"}),
     [(("It fell.", "What happened as a result?", ("x", "y")), None, 1, "4")]),
    ("story-cloze", "test", "cloze_test_test__spring2016 - cloze_test_ALL_test.csv",
     STORY + 'id-1,One.,"Two, ""2"".",Three.,Four.,"Five\nlines.",Six.,2\n',
     [(('One. Two, "2". Three. Four.', "", ("Five\nlines.", "Six.")), 1, 2, "id-1")]),
    # generic files
    ("rte", "dev", "validation.csv", "premise,hypothesis,label\n\"a, b\",c,entailment\r\nd,e,1\n\n",
     [(("a, b", "c"), 0, 2, "0"), (("d", "e"), 1, 3, "1")]),
    ("rte", "train", "train.tsv", row("premise", "hypothesis", "label", "id") + row("a", "b", "0", "x"),
     [(("a", "b"), 0, 2, "x")]),
    ("cola", "train", "train.tsv", row("text", "label") + row("a", "acceptable"), [(("a",), 1, 2, "0")]),
    ("stsb", "test", "test.jsonl", dump({"first": "a", "second": "b", "label": 4}), [(("a", "b"), 4.0, 1, "0")]),
    ("sst2", "test", "test.jsonl", dump({"sentence": "a", "label": -1, "idx": 3}), [(("a",), None, 1, "3")]),
    ("race", "dev", "dev.jsonl", dump({"context": "a", "question": "b", "choices": [*"wxyz"], "label": 3}),
     [(("a", "b", tuple("wxyz")), 3, 1, "0")]),
    ("copa", "dev", "dev.tsv", row("context", "choice1", "choice2", "label") + row("a", "x", "y", "1"),
     [(("a", "", ("x", "y")), 1, 2, "0")]),
]  # fmt: skip


@pytest.mark.parametrize(("task", "split", "file", "text", "golden"), GOLDEN, ids=[f"{r[0]}-{r[2]}" for r in GOLDEN])
def test_golden(tmp_path: Path, task: str, split: str, file: str, text: str, golden: list[tuple[Any, ...]]) -> None:
    loaded = load(tmp_path, task, split, file, text)
    found = [(one.fields, one.label, one.where, one.identifier) for one in loaded.examples]
    assert found == [(fields, label, f"{tmp_path / file}:{line}", name) for fields, label, line, name in golden]
    assert load(tmp_path, task, split, file, text.replace("\n", "\r\n")).sha256 == loaded.sha256


def test_race_is_read_from_its_folders(tmp_path: Path) -> None:
    write(tmp_path, "RACE/dev/high/10.txt", json.dumps(RACE | {"article": "Later."}))
    write(tmp_path, "RACE/dev/high/9.txt", json.dumps(RACE, indent=1))
    write(tmp_path, "RACE/dev/middle/1.txt", json.dumps(RACE | {"article": "Middle."}))
    high = load_examples(TASKS["race-high"], "dev", tmp_path).examples
    assert [one.fields[0] for one in high] == [RACE["article"], RACE["article"], "Later.", "Later."]
    assert high[0].fields[1:] == ("Why?", ("a", "b", "c", "d"))
    assert [one.label for one in high] == [3, 0, 3, 0]
    assert [one.identifier for one in high] == ["high9-1", "high9-2", "high10-1", "high10-2"]
    assert high[1].where == f"{tmp_path}/RACE/dev/high/9.txt:1, question 2"
    both = load_examples(TASKS["race"], "dev", tmp_path / "RACE").examples
    assert [one.fields[0] for one in both][:2] == ["Middle.", "Middle."]
    assert len(both) == 6


def test_story_cloze_is_split_as_gpt1_split_it(tmp_path: Path) -> None:
    from sklearn.model_selection import train_test_split

    rows = "".join(f"{i},a,b,c,d,e{i},f,1\n" for i in range(1871))
    write(tmp_path, "cloze_test_val__spring2016 - cloze_test_ALL_val.csv", STORY + rows)
    parts = [load_examples(TASKS["story-cloze"], split, tmp_path).examples for split in ("train", "dev")]
    wanted = train_test_split(range(1871), test_size=374, random_state=3535999445)
    assert [[int(one.identifier) for one in part] for part in parts] == wanted
    assert [len(part) for part in parts] == [1497, 374]


def test_mrpc_of_microsoft_is_split_by_glues_ids(tmp_path: Path) -> None:
    rows = "".join(row("1", str(i), str(i + 100), f"a{i}", "b") for i in range(5))
    write(tmp_path, "msr_paraphrase_train.txt", MRPC_HEADER + rows)
    with pytest.raises(InputError, match=r"no dev_ids\.tsv: GLUE"):
        load_examples(TASKS["mrpc"], "dev", tmp_path)
    write(tmp_path, "dev_ids.tsv", row("#1 ID", "#2 ID") + row("1", "101") + row("4", "104"))
    ids = {split: [one.identifier for one in load_examples(TASKS["mrpc"], split, tmp_path).examples]
           for split in ("train", "dev")}  # fmt: skip
    assert ids == {"train": ["0 100", "2 102", "3 103"], "dev": ["1 101", "4 104"]}


def test_rows_known_to_be_broken_are_dropped_and_counted(tmp_path: Path) -> None:
    good = row("1", "2", "3", "q", "r", "0")
    text = row("id", "qid1", "qid2", "question1", "question2", "is_duplicate") + good
    loaded = load(tmp_path, "qqp", "train", "train.tsv", text + row("2", "3", "4", "cut") + row("off", "1") + good)
    assert len(loaded.examples) == 2
    assert loaded.notes == (f"{tmp_path}/train.tsv: dropped 2 broken row(s) (first: {tmp_path}/train.tsv:3)",)
    dashes = dump(*[{"gold_label": "-"} | NLI] * 3, {"gold_label": "neutral"} | NLI)
    loaded = load(tmp_path, "snli", "test", "snli_1.0_test.jsonl", dashes)
    assert loaded.notes == (f"{tmp_path}/snli_1.0_test.jsonl: dropped 3 row(s) without a gold label",)


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 0], "idx": [5, 6]}), path)
    [first, second] = load_examples(TASKS["rte"], "train", tmp_path).examples
    assert (first.fields, first.label, first.identifier, second.where) == (("a", "c"), 1, "5", f"{path}:2")
    columns = {"context": ["a"], "choices": [["x", "y"]], "label": [1]}
    pq.write_table(pa.table(columns), path)
    assert load_examples(TASKS["copa"], "train", tmp_path).examples[0].fields == ("a", "", ("x", "y"))
    for columns, message in (
        ({"first": ["a"], "second": ["b"], "label": [None]}, "no label"),
        ({"first": ["a", None], "second": ["b", "c"], "label": [1.0, 2.0]}, "'first' is missing"),
        ({"first": ["a"], "second": ["b"], "label": [float("nan")]}, "the score nan is out of range"),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(InputError, match=message) as refusal:
            load_examples(TASKS["stsb"], "train", tmp_path)
        assert str(refusal.value.where).startswith(f"{path}:")
    path.write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(InputError, match=r"not a readable parquet file: .*train\.parquet:1"):
        load_examples(TASKS["stsb"], "train", tmp_path)


RTE = row("index", "sentence1", "sentence2", "label")
PAIR = {"first": "a", "second": "b", "label": 1}
# (what is wrong, task, file, text, line, message)
FAULTS: list[tuple[str, str, str, str | bytes, int, str]] = [
    ("missing column", "rte", "train.tsv", row("index", "sentence1", "label"), 1, "no column 'sentence2'"),
    ("missing label column", "stsb", "train.csv", "first,second\na,b\n", 1, "no column 'label'"),
    ("misspelt column", "stsb", "train.csv", "first,secnd,label\na,b,1\n", 1, "rename 'secnd' to second"),
    ("extra column", "rte", "train.tsv", row("index", "sentence1", "sentence2", "label", "x"), 1, "unknown column 'x'"),
    ("extra generic column", "stsb", "train.csv", "first,second,label,more\na,b,1,c\n", 1, "unknown column 'more'"),
    ("extra key", "stsb", "train.jsonl", dump(PAIR, PAIR | {"more": 1}), 2, "unknown column 'more'"),
    ("missing key", "stsb", "train.jsonl", dump(PAIR, {"first": "a", "label": 1}), 2, "no 'second' in this row"),
    ("duplicate header", "stsb", "train.csv", "first,second,first,label\na,b,a,1\n", 1, "duplicate column 'first'"),
    ("duplicate key", "stsb", "train.jsonl", '{"first": "a", "first": "b"}\n', 1, "duplicate key 'first'"),
    ("unknown label", "rte", "train.tsv", RTE + row("0", "a", "b", "maybe"), 2, "unknown label 'maybe'"),
    ("index past the labels", "rte", "train.csv", "premise,hypothesis,label\na,b,2\n", 2, "unknown label '2'"),
    ("boolean label", "sst2", "train.jsonl", '{"text": "a", "label": true}\n', 1, "unknown label True"),
    ("fraction as label", "sst2", "train.jsonl", '{"text": "a", "label": 1.5}\n', 1, "unknown label 1.5"),
    ("list as label", "sst2", "train.jsonl", '{"text": "a", "label": [1]}\n', 1, "unknown label"),
    ("missing label", "rte", "train.tsv", RTE + row("0", "a", "b", ""), 2, "no label"),
    ("null label", "sst2", "train.jsonl", '{"text": "a", "label": null}\n', 1, "no label"),
    ("unlabelled row", "rte", "test.csv", "premise,hypothesis,label\na,b,1\na,b,\n", 3, "no label, although other"),
    ("NaN score", "stsb", "train.csv", "first,second,label\na,b,nan\n", 2, "score nan is out of range"),
    ("NaN literal", "stsb", "train.jsonl", '{"label": NaN, "first": "a"}\n', 1, "NaN is not a JSON number"),
    ("infinite score", "stsb", "train.csv", "first,second,label\na,b,-inf\n", 2, "score -inf is out of range"),
    ("huge score", "stsb", "train.jsonl", '{"first": "a", "second": "b", "label": 1e999}\n', 1, "out of range"),
    ("huge integer", "stsb", "train.jsonl", dump(PAIR | {"label": 10**400}), 1, "out of range"),
    ("score too high", "stsb", "train.csv", "first,second,label\na,b,5.01\n", 2, "between 0 and 5"),
    ("word as score", "stsb", "train.csv", "first,second,label\na,b,high\n", 2, "'high', not a number"),
    ("empty file", "rte", "train.tsv", "", 1, "the file is empty"),
    ("header alone", "rte", "train.tsv", RTE, 1, "no examples"),
    ("nothing but dropped rows", "snli", "snli_1.0_train.jsonl", dump({"gold_label": "-"} | NLI), 1, "no examples"),
    ("short row", "rte", "train.tsv", RTE + row("0", "a", "b"), 2, "3 column(s), expected 4"),
    ("long row", "rte", "train.tsv", RTE + row("0", "a", "b", "entailment", "c"), 2, "5 column(s), expected 4"),
    ("long row, no header", "cola", "train.tsv", row("s", "1", "", "a") + row("s", "1", "", "a", "b"), 2, "5 column"),
    ("blank line within", "rte", "train.tsv", RTE + "\n" + row("0", "a", "b", "entailment"), 2, "1 column(s), exp"),
    ("not UTF-8", "rte", "train.tsv", RTE.encode() + b"0\tcaf\xe9\tb\tentailment\n", 2, "not valid UTF-8: 0xe9"),
    ("UTF-16", "rte", "train.tsv", RTE.encode("utf-16-le"), 1, "a NUL byte; could be utf-16-le"),
    ("NUL", "rte", "train.tsv", RTE + row("0", "a\0", "b", "entailment"), 2, "a NUL byte"),
    ("NUL in JSON", "sst2", "train.jsonl", '{"text": "a\\u0000", "label": 1}\n', 1, "contains a NUL"),
    ("lone surrogate", "sst2", "train.jsonl", '{"text": "\\ud800", "label": 1}\n', 1, "lone surrogate"),
    ("JSON array", "sst2", "train.jsonl", "[1]\n", 1, "a JSON array, but an object is needed"),
    ("bad JSON", "sst2", "train.jsonl", '{"text": "a", "label": 1}\n{"text"\n', 2, "not valid JSON"),
    ("deep JSON", "sst2", "train.jsonl", "[" * 200_000 + "\n", 1, "nested too deeply"),
    ("number as text", "sst2", "train.jsonl", '{"text": 5, "label": 1}\n', 1, "'text' is 5, not a string"),
    ("empty text", "rte", "train.tsv", RTE + row("0", "a", " ", "entailment"), 2, "'sentence2' is empty"),
    ("open quote", "stsb", "train.csv", 'first,second,label\na,"b,1\n', 2, "not valid CSV"),
    ("too few choices", "race", "train.jsonl", dump({"context": "a", "choices": ["b"], "label": 0}), 1, "a list of"),
    ("too many choices", "copa", "dev.jsonl", dump({"context": "a", "choices": [*"bcd"], "label": 0}), 1, "3 choices"),
    ("label past the choices", "copa", "train.jsonl", dump(COPA | {"question": "cause", "label": 2}), 1, "label 2"),
    ("unknown question", "copa", "train.jsonl", dump(COPA | {"question": "why", "label": 1}), 1, "unknown question"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "file", "text", "line", "part"), [one[1:] for one in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_a_fault_is_named_by_file_and_line(
    tmp_path: Path, task: str, file: str, text: str | bytes, line: int, part: str
) -> None:
    split = file.partition(".")[0] if file.startswith(("dev", "test")) else "train"
    with pytest.raises(InputError) as refusal:
        load(tmp_path, task, split, file, text)
    assert str(refusal.value.where).partition(", byte ")[0] == f"{tmp_path / file}:{line}"
    assert part in str(refusal.value)
    assert refusal.value.fix
    assert len(str(refusal.value)) < 500


def test_a_faulty_race_passage_is_named(tmp_path: Path) -> None:
    for change, part in (
        ({"answers": ["A"]}, "not lists of equal length"),
        ({"answers": ["A", "E"]}, "unknown label 'E'"),
        ({"options": [["a"], ["b"]]}, "not a list of choices"),
        ({"questions": None}, "not lists of equal length"),
    ):
        path = write(tmp_path, "train/middle/1.txt", json.dumps(RACE | change))
        with pytest.raises(InputError, match=part) as refusal:
            load_examples(TASKS["race-middle"], "train", tmp_path)
        assert str(refusal.value.where).startswith(f"{path}:1")


@st.composite
def almost_right(draw: st.DrawFn) -> bytes:
    """Return a file of the right kind of lines, with cells of anything."""
    cell = st.one_of(st.sampled_from(["a", "1", "entailment", "label", "", "-", "\\", '"', "nan"]), st.text(max_size=4))
    joint = draw(st.sampled_from(["\t", ",", " "]))
    header = draw(st.sampled_from(["premise,hypothesis,label", "index\tsentence1\tsentence2\tlabel", "text", ""]))
    rows = draw(st.lists(st.lists(cell, max_size=5), max_size=5))
    return "\n".join([header, *(joint.join(cells) for cells in rows)]).encode("utf-8", "surrogatepass")


def refusal_of(task: str, folder: Path) -> InputError | None:
    try:
        assert load_examples(TASKS[task], "train", folder).examples
    except InputError as error:
        return error
    return None


@given(
    content=st.one_of(st.binary(max_size=200), almost_right()),
    file=st.sampled_from(["train.tsv", "train.csv", "train.jsonl", "train.parquet", "sts-train.csv"]),
    task=st.sampled_from(["rte", "cola", "stsb", "copa", "race", "qqp"]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_loads_or_is_refused(tmp_path: Path, content: bytes, file: str, task: str) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    write(tmp_path, file, content)
    error = refusal_of(task, tmp_path)
    assert error is None or error.fix


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["context", "choices", "label"]), inner)
    ),
    max_leaves=8,
)


@given(value=JSON)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_loads_or_is_refused(tmp_path: Path, value: Any) -> None:
    good = {"context": "a", "choices": ["b", "c"], "label": 1}
    rows = [good, value, good | value if isinstance(value, dict) else good]
    write(tmp_path, "train.jsonl", dump(*rows))
    error = refusal_of("copa", tmp_path)
    assert error is None or str(error.where).startswith(f"{tmp_path}/train.jsonl:")
