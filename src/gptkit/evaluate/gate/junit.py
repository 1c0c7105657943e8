"""Verdicts as JUnit XML, the form in which build servers read the results of tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from xml.etree import ElementTree

from gptkit.report.text import one_line


class Verdict(Protocol):
    """A verdict ("pass", "fail" or "inconclusive") on a measure of "task/protocol", in a line and in figures."""

    @property
    def task(self) -> str: ...

    @property
    def measure(self) -> str: ...

    @property
    def verdict(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def properties(self) -> Mapping[str, str]: ...


def junit_xml(verdicts: Sequence[Verdict], *, name: str = "gptkit eval") -> str:
    """Return a test suite with a test case for each verdict: a pure function of them.

    An inconclusive verdict is no failure: the case passes, and its output says so.
    """
    failures = sum(one.verdict == "fail" for one in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": one_line(name), **counts})
    for one in verdicts:
        suite.append(_case(one))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(one: Verdict) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"classname": one_line(one.task), "name": one_line(one.measure)})
    properties = ElementTree.SubElement(case, "properties")
    for name, value in {"verdict": one.verdict, **one.properties}.items():
        ElementTree.SubElement(properties, "property", {"name": one_line(name), "value": one_line(value)})
    message = one_line(one.message)
    if one.verdict == "fail":
        ElementTree.SubElement(case, "failure", {"message": message, "type": "regression"}).text = message
    elif one.verdict == "inconclusive":
        ElementTree.SubElement(case, "system-out").text = f"inconclusive: {message}"
    return case
