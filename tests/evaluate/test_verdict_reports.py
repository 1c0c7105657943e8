from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from gptkit.evaluate.gate.verdicts import Row, Verdict, annotation, junit_xml, summary_markdown

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
HOSTILE = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["\x1b[31mred\x1b[0m", "]]>", "<failure/>", "a|b`c`", "::error::x", "\x1b]0;title\x07", "\r\n# heading", "\ufffe"]
)


def row(
    verdict: Verdict = "pass",
    task: str = "lambada/last-word",
    message: str = "lambada/last-word.accuracy 0.460 -> 0.431",
    properties: Mapping[str, str] = {"p_value": "0.0004", "floor": "0.01"},
) -> Row:
    return Row(task, "accuracy", verdict, message, 1.0, (), properties)


def test_a_case_for_each_verdict() -> None:
    text = junit_xml([row(), row("fail"), row("inconclusive"), row("n/a")])
    suite = ElementTree.fromstring(text).find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    passed, failed, unsure, undefined = suite.findall("testcase")
    assert (failed.get("classname"), failed.get("name")) == ("lambada/last-word", "accuracy")
    assert [one.find("failure") is not None for one in (passed, failed, unsure)] == [False, True, False]
    failure = failed.find("failure")
    assert failure is not None
    assert failure.get("message") == "lambada/last-word.accuracy 0.460 -> 0.431"
    skipped = unsure.find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "inconclusive: lambada/last-word.accuracy 0.460 -> 0.431"
    error = undefined.find("error")
    assert error is not None
    assert error.get("message") == "lambada/last-word.accuracy 0.460 -> 0.431"
    properties = {one.get("name"): one.get("value") for one in passed.iter("property")}
    assert properties == {"verdict": "pass", "p_value": "0.0004", "floor": "0.01"}


@given(HOSTILE, HOSTILE, HOSTILE, st.sampled_from(["pass", "fail", "inconclusive"]))
def test_hostile_names_stay_text_in_xml(task: str, message: str, key: str, verdict: Verdict) -> None:
    text = junit_xml([row(verdict, task, message, {key: message})], name=task)
    assert not CONTROL.search(text)
    root = ElementTree.fromstring(text.encode("utf-8"))
    [case] = root.iter("testcase")
    assert len(list(root.iter("failure"))) == (verdict == "fail")
    assert "\n" not in (case.get("classname") or "")


def test_the_verdict_comes_first_in_a_summary() -> None:
    table = [("metric", "verdict"), ("lambada/last-word.accuracy", "fail")]
    assert summary_markdown("fail: lambada 0.460 -> 0.431", table, ["blimp was not evaluated"]) == (
        "## gptkit eval: fail\n\n"
        "lambada 0.460 -> 0.431\n\n"
        "| metric | verdict |\n|---|---|\n| lambada/last-word.accuracy | fail |\n\n"
        "- blimp was not evaluated\n"
    )


@given(HOSTILE, HOSTILE)
def test_hostile_names_stay_text_in_markdown(name: str, warning: str) -> None:
    text = summary_markdown(f"pass: {name}", [("metric", "verdict"), (name, "pass")], [warning])
    assert not CONTROL.search(text)
    assert not re.search(r"<[a-zA-Z/!]", text)
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {3}
    assert len(re.findall(r"(?<!\\)(?:\\\\)*`", text)) == 0


@given(HOSTILE, HOSTILE)
def test_hostile_names_stay_on_the_line_of_an_annotation(title: str, text: str) -> None:
    line = annotation("error", title, text)
    assert len(line.splitlines()) == 1
    head, _, rest = line.removeprefix("::error title=").partition("::")
    assert "," not in head
    assert ":" not in head
    assert re.sub("%(25|3A|2C|0D|0A)", "", head + rest).count("%") == 0


def test_an_annotation() -> None:
    assert annotation("warning", "a:b", "50%\n::error::x") == "::warning title=a%3Ab::50%25 ::error::x"
