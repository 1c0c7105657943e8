"""Reports a gate's verdicts: on the screen, as JUnit XML and Markdown, and to GitHub Actions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from gptkit.console import Console
from gptkit.errors import GptkitError
from gptkit.evaluate.gate.verdicts import HEADER, Outcome, Row
from gptkit.evaluate.options import EvalOptions
from gptkit.report.text import escape_markdown, one_line
from gptkit.system import files

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
STEP_SUMMARY, IN_ACTIONS = "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"


def show_outcome(outcome: Outcome, model: str, options: EvalOptions, console: Console) -> None:
    """Say the verdict first, then what it rests on; write the reports that were asked for.

    A report that cannot be written is an error, unless the verdict is one already.
    """
    if outcome.verdict == "inconclusive":
        console.warn(outcome.headline)
    console.result(outcome.headline)
    for line in outcome.warnings:
        console.warn(line)
    console.table("", HEADER, [row.cells for row in outcome.rows], [COLOURS[row.verdict] for row in outcome.rows])
    name = f"{model}, baseline {options.baseline or 'none'}"
    table = [HEADER, *(row.cells for row in outcome.rows)]
    summary = summary_markdown(outcome.headline, table, (name, *outcome.warnings))
    try:
        with files.translate_os_errors("writing the verdicts", fix="name another file"):
            if options.junit is not None:
                files.write_report(options.junit, junit_xml(outcome.rows, name=f"gptkit eval: {name}"))
            if options.summary is not None:
                files.write_report(options.summary, summary)
            if step_summary := os.environ.get(STEP_SUMMARY):
                with Path(step_summary).open("a", encoding="utf-8") as file:
                    file.write(summary)
    except GptkitError as error:
        if outcome.verdict != "fail":
            raise
        console.warn(str(error))
    if os.environ.get(IN_ACTIONS) and outcome.verdict != "pass":
        level: Literal["error", "warning"] = "error" if outcome.verdict == "fail" else "warning"
        console.say(annotation(level, "gptkit eval", outcome.headline))


def junit_xml(verdicts: Sequence[Row], *, name: str = "gptkit eval") -> str:
    """Return a test suite with a test case for each verdict: a pure function of them.

    An inconclusive verdict is no failure: the case passes, and its output says so.
    """
    failures = sum(row.verdict == "fail" for row in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": one_line(name), **counts})
    for row in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": one_line(row.task), "name": one_line(row.measure)}
        )
        properties = ElementTree.SubElement(case, "properties")
        for key, value in {"verdict": row.verdict, **row.properties}.items():
            ElementTree.SubElement(properties, "property", {"name": one_line(key), "value": one_line(value)})
        message = one_line(row.message)
        if row.verdict == "fail":
            ElementTree.SubElement(case, "failure", {"message": message, "type": "regression"}).text = message
        elif row.verdict == "inconclusive":
            ElementTree.SubElement(case, "system-out").text = f"inconclusive: {message}"
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def summary_markdown(headline: str, table: Sequence[Sequence[str]], warnings: Sequence[str] = ()) -> str:
    """Return the verdict, a table of cells (the first row is its header) and the warnings, as Markdown.

    Whatever comes from names is shown as it is, never read as Markdown or HTML.
    """
    verdict, _, rest = headline.partition(":")
    parts = [f"## gptkit eval: {escape_markdown(verdict)}"]
    if rest.strip():
        parts.append(escape_markdown(rest))
    if len(table) > 1:
        lines = ["| " + " | ".join(escape_markdown(cell) for cell in row) + " |" for row in table]
        parts.append("\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]]))
    if warnings:
        parts.append("\n".join(f"- {escape_markdown(line)}" for line in warnings))
    return "\n\n".join(parts) + "\n"


def annotation(level: Literal["error", "warning"], title: str, text: str) -> str:
    """Return the line by which a job of GitHub Actions shows a text beside its log."""
    escaped = one_line(title).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={escaped}::{one_line(text).replace('%', '%25')}"
