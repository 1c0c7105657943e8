"""R24: in the reports that gptkit writes, texts of others stay text: no markup, no script, no link, always valid XML.

Markdown is rendered by a parser of CommonMark with GitHub's tables, and what it makes is searched as a document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from in_process import CONTROL, gptkit
from markdown_it import MarkdownIt
from small_runs import SmallRuns

from gptkit.evaluate.all_checkpoints import draw_zero_shot
from gptkit.evaluate.gate.verdicts import Row, Verdict, annotation, junit_xml, summary_markdown
from gptkit.report.model_card import model_card
from gptkit.report.plots import draw_loss
from gptkit.report.text import one_line
from gptkit.tasks.own import read_task

HTML = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe src=//evil>",
    "<b>",
    "<a href='javascript:alert(1)'>x</a>",
    "<style>@import'//evil'</style>",
    "<math><mtext></p><img src onerror=a>",
    "</td></tr></table><script>1</script>",
    "<!--",
    "-->",
    "<!DOCTYPE x>",
    "<?php x ?>",
    "<![CDATA[x]]>",
    "<x/y=z>",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "&#x3c;img src=x&#x3e;",
    "<details open ontoggle=alert(1)>",
    "<base href=//evil>",
    "<link rel=stylesheet href=//evil>",
    "<meta http-equiv=refresh content='0;url=//evil'>",
    "<form action=//evil>",
    "<object data=//evil>",
    "<embed src=//evil>",
    "<video src=//evil>",
    "<input onfocus=alert(1) autofocus>",
    "<scr\0ipt>",
    '"><script>1</script>',
    "'><script>1</script>",
    "<SCRIPT SRC=//evil></SCRIPT>",
    "<a\nhref=x>",
    "<\u2028script>",
]
MARKDOWN = [
    "[x](http://evil)",
    "![x](http://evil/a.png)",
    "[x](javascript:alert(1))",
    "[x]: http://evil",
    "[x][y]",
    "<http://evil>",
    "http://evil/a",
    "https://evil",
    "www.evil.com",
    "ftp://evil",
    "a@evil.com",
    "![][x]\n\n[x]: http://evil",
    "[^1]",
    "# heading",
    "a\n# heading",
    "a\r# heading",
    "a\n\n---\n",
    "a\n===",
    "    code",
    "`code`",
    "``a`",
    "```\nx",
    "~~~\nx",
    "* list",
    "- [ ] x",
    "1. x",
    "> quote",
    "**bold**",
    "_it_",
    "~~s~~",
    "a | b",
    "a \\| b",
    "\\",
    "\\\\|",
    "|---|",
    "a\\",
    "a  \nb",
    "a\tb",
    "$x$",
    "$$x$$",
    "{{ x }}",
    "{% x %}",
    ":smile:",
    "@someone",
    "#1",
    "<@U1>",
    "a||b",
    "|",
    "||",
    "\\`x`",
    "---\ntitle: x\n---",
    "--- ",
    "+++",
    "\u2028# x",
    "\x0b# x",
    "\x0c# x",
    "\x85# x",
    "&nbsp;",
    "&copy",
    "\\<b>",
    "`|`",
]
XML = [
    "]]>",
    "<failure/>",
    "</testcase>",
    "&",
    "&amp;",
    "&#0;",
    "&#x1b;",
    "\ufffe",
    "\uffff",
    "\ud800",
    "\x00",
    "\x01",
    "\x1b[31m",
    "\x1b]8;;http://evil\x07x",
    "\x9b1m",
    "\u202egpj",
    "\u2066x\u2069",
    "\x7f",
    "\x85",
    "\U0001fffe",
    "<!ENTITY x 'y'>",
    "\ue000",
    "<?xml version='1.0'?>",
    "'\"",
    "\r\n",
    "::error::x",
    "::set-output name=x::y",
    "%0A::error::x",
    "##[error]x",
    "\t",
]
PAYLOADS = [*HTML, *MARKDOWN, *XML]
HARMLESS = {
    "h1",
    "h2",
    "p",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "pre",
    "code",
    "ul",
    "li",
    "hr",
    "em",
    "strong",
}


class Document(HTMLParser):
    """The elements of a document, and what in them could run, load or lead away."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.dangers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = [name for name, _ in attributes if name not in ("class", "style")]
        if tag not in HARMLESS or named:
            self.dangers.append(f"<{tag} {' '.join(named)}>")

    def handle_comment(self, data: str) -> None:
        self.dangers.append("a comment")

    def handle_decl(self, decl: str) -> None:
        self.dangers.append("a declaration")

    unknown_decl = handle_pi = handle_decl


def rendered(markdown: str) -> Document:
    return Document(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


# What GitHub makes links of besides; code is left alone.
BARE_LINK = re.compile(r"(?i)(?<![\\\w])(https?|ftp)://|(?<![\\\w])www\.\w")


def markup(markdown: str, plain: str, shows: bool) -> list[str]:
    """Return what a text does in a report that the word `plain` in its place does not.

    Of a text that `shows` nothing, an empty paragraph may be left out.
    """
    made, expected = rendered(markdown), rendered(plain)
    wrong = list(made.dangers)
    wrong += [] if made.tags == expected.tags or not shows else [f"other elements: {made.tags} for {expected.tags}"]
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", markdown)
    wrong += ["a bare link"] if BARE_LINK.search(outside) else []
    wrong += ["control characters"] if CONTROL.search(markdown) else []
    return wrong


def card(text: str) -> str:
    """Return a model's card with a text wherever one of others can stand."""
    names = ("name", "summary", "shape", "data", "licence", "tokenizer", "command", "sample", "use")
    facts: dict[str, Any] = {**dict.fromkeys(names, f"a {text} b"), "measured": {text: text}, "versions": {text: text}}
    return model_card(**facts, parameters=1, data_sha256="ab" * 32).partition("\n---\n")[2]


def summary(text: str) -> str:
    return summary_markdown(f"fail: {text}", [("metric", text), (text, "fail"), ("a", f"{text}|{text}")], [text])


def invalid_xml(text: str) -> list[str]:
    verdicts: tuple[Verdict, ...] = ("pass", "fail", "inconclusive")
    xml = junit_xml([Row(text, text, verdict, text, 1.0, (), {text: text}) for verdict in verdicts], name=text)
    try:
        root = ElementTree.fromstring(xml.encode("utf-8"))
    except (ElementTree.ParseError, UnicodeEncodeError) as error:
        return [f"no XML: {error}"]
    counts = [len(list(root.iter(tag))) for tag in ("testcase", "failure", "skipped", "property")]
    return [] if counts == [3, 1, 1, 6] and not CONTROL.search(xml) else [f"elements {counts}"]


def bad_annotation(text: str) -> list[str]:
    line = annotation("error", text, text)
    head, _, rest = line.removeprefix("::error title=").partition("::")
    broken = len(line.splitlines()) != 1 or ":" in head or "," in head or CONTROL.search(line)
    return [f"an annotation {line!r}"] if broken or "%0A" in head + rest else []


def forms(text: str) -> Iterator[str]:
    """Yield a payload as it is, within words, and three in a row."""
    yield text
    yield f"a {text} b"
    yield f"{text} {text}\n{text}"


def test_no_payload_is_more_than_text_in_a_report(figure: Any) -> None:
    failures = []
    for text in (form for one in PAYLOADS for form in forms(one)):
        wrong = [f"card: {one}" for one in markup(card(text), card("plain"), True)]
        wrong += [f"summary: {one}" for one in markup(summary(text), summary("plain"), bool(one_line(text).strip()))]
        wrong += [*invalid_xml(text), *bad_annotation(text)]
        failures += [f"{text!r}: {one}" for one in wrong]
    told = f"{len(failures)} run, lead away or break a report; JUnit parses always"
    figure("R24", "payloads of HTML, Markdown and XML in the texts of reports", len(PAYLOADS), told, bound="0")
    assert not failures, "\n".join(failures[:30])


def test_a_picture_can_have_any_title(tmp_path: Path, count: Any, figure: Any) -> None:
    odd = ["$\\frac{1$", "\u65e5\u672c\u8a9e", "x" * 5000, "\U0001f600", "$\\undefined$", "a$b", "$$"]
    chosen = [*odd, *PAYLOADS][: count(3, 1000)]
    rows = [{"step": i, "tokens": 10 * i, "loss": 5.0 / i, "val_loss": 5.1 / i} for i in range(1, 4)]
    for title in chosen:
        draw_loss(rows, tmp_path / "loss.png", title)
        draw_zero_shot([1, 10], {"task": [0.1, 0.2]}, tmp_path / "curves.png", title)
    figure("R24", "titles of pictures", len(chosen), f"{len(chosen)} drawn as text", bound="100%")


def names(payloads: Sequence[str]) -> list[str]:
    """Return payloads as names of files: without the two characters that none can have."""
    usable = [re.sub(r"[/\0]", "", one.encode("utf-8", "replace").decode())[:60] for one in payloads]
    return [one for one in usable if one.strip(". ")]


def test_a_run_with_hostile_names_writes_harmless_reports(
    tmp_path: Path, small: SmallRuns, count: Any, figure: Any
) -> None:
    """A corpus, a model and a run with such names: the card of a pretraining and of its continuation, and the curve."""
    chosen = names([*PAYLOADS, "$\\frac{1$"])[:: count(100, 9)]
    failures = []
    for number, name in enumerate(chosen):
        folder = tmp_path / str(number)
        folder.mkdir()
        text, shape, out = folder / f"{name}.txt", folder / f"{name}.json", folder / name
        text.write_text((small.folder / "text.txt").read_text())
        shape.write_text((small.folder / "shape.json").read_text())
        words = small.pretrain(out, steps=2, eval_every=2, model=shape)
        ended = gptkit("pretrain", "--json", *(str(text) if word.endswith("text.txt") else word for word in words[1:]))
        if ended.code:
            failures.append(f"{name!r}: {ended.err}")
            continue
        readme = (out / "model" / "README.md").read_text().partition("\n---\n")[2]
        failures += [f"{name!r}: {one}" for one in rendered(readme).dangers]
        failures += [f"{name!r}: control characters"] * bool(CONTROL.search(readme))
    figure("R24", "hostile names of corpus, model and run", len(chosen), f"{len(failures)} harmful cards or curves")
    assert not failures, "\n".join(failures)


def test_a_task_of_hostile_words_is_harmless_in_its_reports(tmp_path: Path) -> None:
    """A task's own words reach the card through its name, which must be plain, and its data, which is shown as text."""
    for text in PAYLOADS:
        path = tmp_path / "task.yaml"
        plain = one_line(text) or "x"
        path.write_text(f"format: classification\nlabels: [a, b]\ndata: {json.dumps(plain)}\n")
        if plain.strip():
            assert read_task(path).data == plain
