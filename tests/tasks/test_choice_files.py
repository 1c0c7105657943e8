"""Readers of LAMBADA, CBT, Winograd, HellaSwag and BLiMP: golden examples, and every fault named by file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptkit.errors import InputError, UsageError
from gptkit.tasks.benchmarks.blimp import PHENOMENON_OF, blimp
from gptkit.tasks.benchmarks.cbt import cbt
from gptkit.tasks.benchmarks.hellaswag import hellaswag
from gptkit.tasks.benchmarks.lambada import LAMBADA, lambada
from gptkit.tasks.benchmarks.winograd import winograd
from gptkit.tasks.table import EVALUATIONS, kind_of
from gptkit.tasks.task import Loaded

READERS: dict[str, Callable[[str | None], Loaded]] = {
    "lambada": lambada,
    "cbt-ne": lambda data: cbt(data, words="NE"),
    "winograd": winograd,
    "hellaswag": hellaswag,
    "blimp": blimp,
}
FILES = {
    "lambada": "lambada_test.jsonl",
    "cbt-ne": "cbtest_NE_valid_2000ex.txt",
    "hellaswag": "hellaswag_val.jsonl",
    "blimp": "wh_island.jsonl",
}
CBT_LINES = [f"{place} Sentence {place} ." for place in range(1, 21)]
CBT_QUESTION = "21 `` I saw XXXXX , '' he said .\tAnn\t\tBob|Ann||Eve|Bob"
CBT = "\n".join([*CBT_LINES, CBT_QUESTION, "", *CBT_LINES, CBT_QUESTION, ""])
HELLASWAG = {
    "ind": 4,
    "activity_label": "Cooking",
    "ctx_a": "A man stirs.",
    "ctx_b": "he",
    "ctx": "A man stirs. he",
    "endings": ["sits.", "eats.", "[step] runs.", "sings."],
    "label": 2,
}
PAIR = {"sentence_good": "I go.", "sentence_bad": "I goes.", "UID": "wh_island", "pairID": "7", "field": "syntax"}
SCHEMA = """
<schema>
<text>
<txt1>
Caf\xe9 Mo fits
in the box because </txt1>
<pron> it </pron>
<txt2> is small.
</txt2>
</text>
<quote><pron> it </pron></quote>
<answers><answer>The caf\xe9 </answer> <answer>the box</answer></answers>
<correctAnswer>B. </correctAnswer>
<source>us</source>
</schema>
"""
XML = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<collection>\n{}</collection>\n'
WSC = {
    "text": "It fell because it slid.",
    "pronoun": "it",
    "pronoun_loc": 16,
    "options": ["The cup", "The dog"],
    "label": 0,
}


def dump(*rows: Any) -> str:
    return "".join(json.dumps(one) + "\n" for one in rows)


def load(folder: Path, name: str, text: str, file: str = "") -> Loaded:
    path = folder / (file or FILES[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="latin-1" if path.suffix == ".xml" else "utf-8")
    found = READERS[name](str(folder))
    assert {len(example.fields) for example in found.examples} == {len(EVALUATIONS[name].fields)}
    return found


def test_golden_examples(tmp_path: Path) -> None:
    [first, second] = load(tmp_path, "lambada", dump({"text": "One.\n\n“Two” three"}, {"text": "A b"})).examples
    assert (first.fields, first.label, first.identifier) == (("One.\n\n“Two” three",), None, "0")
    assert second.where == f"{tmp_path}/lambada_test.jsonl:2"
    [first, second] = load(tmp_path, "cbt-ne", CBT, "CBTest/data/CBTEST_NE_valid_2000ex.txt").examples
    sentences, question, candidates = first.fields
    assert (sentences[0], sentences[19], len(sentences)) == ("Sentence 1 .", "Sentence 20 .", 20)
    assert (question, candidates, first.label) == ("`` I saw XXXXX , '' he said .", ("Bob", "Ann", "Eve"), 1)
    assert second.where == f"{tmp_path}/CBTest/data/CBTEST_NE_valid_2000ex.txt:43"
    [example] = load(tmp_path, "hellaswag", dump(HELLASWAG | {"ctx_b": ""}), "HellaSwag/hellaswag_val.jsonl").examples
    assert example.fields[:4] == ("Cooking", "A man stirs.", "", "A man stirs. he")
    assert (example.fields[4], example.label) == (("sits.", "eats.", "[step] runs.", "sings."), 2)


def test_winograd_schemas_come_as_xml_or_as_json_lines(tmp_path: Path) -> None:
    loaded = load(tmp_path / "a", "winograd", XML.format(SCHEMA), "WSCollection.xml")
    [example] = loaded.examples
    assert example.fields == ("Café Mo fits in the box because ", "it", " is small.", ("The café", "the box"))
    assert (example.label, example.where) == (1, f"{tmp_path}/a/WSCollection.xml:4")
    assert loaded.notes == (f"{tmp_path}/a/WSCollection.xml: only 1 of the 273 schemas behind the published figures",)
    many = load(tmp_path / "a", "winograd", XML.format(SCHEMA * 285), "WSCollection.xml")
    assert len(many.examples) == 273
    assert "the first 273 of 285 schemas" in many.notes[0]
    [example] = load(tmp_path / "b", "winograd", dump(WSC), "winograd/wsc273.jsonl").examples
    assert example.fields == ("It fell because ", "it", " slid.", ("The cup", "The dog"))
    ended = XML.format(SCHEMA.replace(" is small.", "."))
    [example] = load(tmp_path / "a", "winograd", ended, "WSCollection.xml").examples
    assert example.fields[2] == "."


def test_blimps_sets_take_turns_and_missing_ones_are_told(tmp_path: Path) -> None:
    other = PAIR | {"UID": "causative"}
    load(tmp_path, "blimp", dump(PAIR, PAIR | {"pairID": "8"}, PAIR | {"pairID": "9"}), "blimp/data/wh_island.jsonl")
    loaded = load(tmp_path, "blimp", dump(other), "blimp/data/causative.jsonl")
    assert [one.identifier for one in loaded.examples] == ["causative 7", "wh_island 7", "wh_island 8", "wh_island 9"]
    assert loaded.examples[0].fields == ("causative", ("I go.", "I goes."))
    assert "65 of BLiMP's 67 sets are missing" in loaded.notes[0]
    one = blimp(str(tmp_path / "blimp"), only="causative")
    assert ([example.identifier for example in one.examples], one.notes) == (["causative 7"], ())
    assert (len(PHENOMENON_OF), len(set(PHENOMENON_OF.values()))) == (67, 12)


# (what is wrong, evaluation, text, line, message)
FAULTS: list[tuple[str, str, str, int, str]] = [
    ("empty file", "lambada", "", 1, "the file is empty"),
    ("no JSON", "lambada", dump({"text": "a b"}) + "{\n", 2, "not valid JSON"),
    ("no text", "lambada", dump({"txt": "a b"}), 1, "no key 'text'"),
    ("a number", "lambada", dump({"text": 3}), 1, "'text' is 3, not a string"),
    ("one word", "lambada", dump({"text": " word "}), 1, "no space between a context"),
    ("empty file", "cbt-ne", "\n\n", 1, "the file is empty"),
    (
        "a line missing",
        "cbt-ne",
        "\n".join([*CBT_LINES[:3], *CBT_LINES[4:], CBT_QUESTION]),
        4,
        "expected line 4 of",
    ),
    ("cut short", "cbt-ne", "\n".join(CBT_LINES), 20, "this example has 20 lines instead of 21"),
    ("no blank", "cbt-ne", CBT.replace("XXXXX", "YYYYY"), 21, "no XXXXX in the question"),
    ("no columns", "cbt-ne", CBT.replace("\t", " "), 21, "1 column(s), expected 4"),
    ("answer not among them", "cbt-ne", CBT.replace("\tAnn", "\tAnnie"), 21, "the answer 'Annie' is not one of"),
    ("one candidate", "cbt-ne", CBT.replace("Bob|Ann||Eve|Bob", "Ann"), 21, "not one of several candidates"),
    (
        "no number",
        "cbt-ne",
        CBT.replace("7 Sentence 7", "Sentence 7", 1),
        7,
        "line 7 of an example, found 'Sent",
    ),
    (
        "three endings",
        "hellaswag",
        dump(HELLASWAG, HELLASWAG | {"endings": ["a", "b", "c"]}),
        2,
        "list of 4 strings",
    ),
    ("empty ending", "hellaswag", dump(HELLASWAG | {"endings": ["a", "b", " ", "c"]}), 1, "'ending 3' is empty"),
    ("unlabelled", "hellaswag", dump(HELLASWAG | {"label": ""}), 1, "unknown label ''"),
    ("boolean label", "hellaswag", dump(HELLASWAG | {"label": True}), 1, "unknown label True"),
    ("no context", "hellaswag", dump({key: HELLASWAG[key] for key in HELLASWAG if key != "ctx"}), 1, "no key 'ctx'"),
    ("no keys", "hellaswag", dump({"ctx": "a", "label": 0}), 1, "no key 'activity_label', 'ctx_a', 'ctx_b', 'endings'"),
    ("no keys", "blimp", dump({"UID": "wh_island"}), 1, "no key 'sentence_good', 'sentence_bad'"),
    ("NUL", "hellaswag", dump(HELLASWAG | {"ctx_b": "a\0b"}), 1, "contains a NUL"),
    ("another set", "blimp", dump(PAIR, PAIR | {"UID": "causative"}), 2, "the UID is 'causative', not 'wh_island'"),
    ("no bad sentence", "blimp", dump({"sentence_good": "a", "UID": "wh_island"}), 1, "no key 'sentence_bad'"),
    ("empty sentence", "blimp", dump(PAIR | {"sentence_good": ""}), 1, "'sentence_good' is empty"),
]
# (what is wrong, schemas, line, message)
XML_FAULTS = [
    ("no schema", "", 1, "no <schema> in the file"),
    ("not closed", SCHEMA.replace("</pron>", "", 1), 12, "not valid XML: mismatched tag"),
    ("no pronoun", SCHEMA.replace("<pron> it </pron>", "", 1), 4, "0 elements text/pron"),
    ("two texts", SCHEMA.replace("<pron> it </pron>", "<pron>it</pron><pron>it</pron>", 1), 4, "2 elements text/pron"),
    ("empty pronoun", SCHEMA.replace("<pron> it </pron>", "<pron/>", 1), 4, "nothing to resolve"),
    ("one answer", SCHEMA.replace("<answer>the box</answer>", ""), 4, "not two referents"),
    ("empty answer", SCHEMA.replace("the box</answer>", "</answer>"), 4, "'referent' is empty"),
    ("unknown answer", SCHEMA.replace("B.", "C."), 4, "unknown label 'C'"),
]
JSON_FAULTS = [
    ("pronoun elsewhere", WSC | {"pronoun_loc": 3}, "the pronoun 'it' is not at pronoun_loc 3"),
    ("no place", WSC | {"pronoun_loc": "16"}, "not at pronoun_loc '16'"),
    ("three options", WSC | {"options": ["a", "b", "c"]}, "not two referents"),
    ("boolean label", WSC | {"label": False}, "unknown label False"),
    ("nothing follows", WSC | {"text": "It fell because it"}, "nothing to resolve"),
]


@pytest.mark.parametrize(("what", "name", "text", "line", "message"), FAULTS, ids=[f"{r[1]}: {r[0]}" for r in FAULTS])
def test_a_fault_is_named(tmp_path: Path, what: str, name: str, text: str, line: int, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        load(tmp_path, name, text)
    assert refusal.value.where == f"{tmp_path / FILES[name]}:{line}"
    assert message in str(refusal.value)
    assert refusal.value.fix
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("what", "schemas", "line", "message"), XML_FAULTS, ids=[r[0] for r in XML_FAULTS])
def test_a_fault_of_the_xml_is_named(tmp_path: Path, what: str, schemas: str, line: int, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        load(tmp_path, "winograd", XML.format(schemas), "WSCollection.xml")
    assert refusal.value.where == f"{tmp_path}/WSCollection.xml:{line}"
    assert message in str(refusal.value)


@pytest.mark.parametrize(("what", "row", "message"), JSON_FAULTS, ids=[r[0] for r in JSON_FAULTS])
def test_a_fault_of_winograds_json_is_named(tmp_path: Path, what: str, row: Any, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        load(tmp_path, "winograd", dump(WSC, row), "wsc273.jsonl")
    assert refusal.value.where == f"{tmp_path}/wsc273.jsonl:2"
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe<\0", b"text", b"<a>&x;</a>", b'<?xml version="1.0" encoding="x"?>']
)
def test_what_is_no_xml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "WSCollection.xml").write_bytes(content)
    with pytest.raises(InputError, match="not valid XML"):
        winograd(str(tmp_path))


def test_xml_that_could_define_entities_is_refused_at_its_doctype(tmp_path: Path) -> None:
    bomb = '<?xml version="1.0"?>\n<!DOCTYPE c [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n<c>&b;</c>'
    with pytest.raises(InputError, match=r"a DOCTYPE.*WSCollection\.xml:2"):
        load(tmp_path, "winograd", bomb, "WSCollection.xml")


@pytest.mark.parametrize(
    "name", [name for name, row in EVALUATIONS.items() if kind_of(row) == "choices" and name != "demo-cloze"]
)
def test_without_data_the_error_says_what_to_give(tmp_path: Path, name: str) -> None:
    row = EVALUATIONS[name]
    with pytest.raises(UsageError, match=r"needs its data \(--data\) - pass --data DIR, a folder with "):
        row.load(None)
    (tmp_path / "readme.md").touch()
    with pytest.raises(InputError, match=r"looked for .* \(any case\); found readme\.md"):
        row.load(str(tmp_path))


def test_the_real_files(test_data: Path) -> None:
    loaded = lambada(str(test_data / "zero_shot"))
    assert (len(loaded.examples), loaded.notes) == (5153, ())
    loaded = blimp(str(test_data / "zero_shot"))
    assert len(loaded.examples) == 6000
    assert "61 of BLiMP's 67 sets are missing" in loaded.notes[0]
    assert len({one.identifier for one in loaded.examples}) == 6000


def test_what_is_gated_of_lambada_is_no_figure_twice() -> None:
    gated = [(protocol.name, protocol.measures[: protocol.gated]) for protocol in LAMBADA.protocols]
    assert len(gated) == 8
    assert all(("perplexity" in names) != name.endswith("-no-stop-words") for name, names in gated)
