"""Names in Markdown: as they are written, and never markup."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gptkit.report.text import escape_markdown, one_line

AS_WRITTEN = r"""
my_task  v1.0-a  评论  समीक्षा  می‌خواهم  👩‍🚀  run #3 (best)  C#  100%  a + b  5 * 3 = 15
2.13.0+cpu  ~/runs  $HOME/x  n < 5 & m > 3
_private  a*  [0, 5]  f(x) [y]  !  -1.5  a\b  C:\Users  1.5
{x}  don't  a-b_c.d~e  micro_batch_size  --out  =  x: y  AT&T
"""
NAMES = [name for line in AS_WRITTEN.strip().splitlines() for name in line.split("  ")]
ESCAPED = {
    "a|b": r"a\|b",
    "__init__": r"\_\_init__",
    "*d*": r"\*d*",
    "`c`": r"\`c\`",
    "[x](y)": r"[x]\(y)",
    "# e": r"\# e",
    "- e": r"\- e",
    "1. e": r"1\. e",
    "> e": r"\> e",
    "<b>": "&lt;b>",
    "&amp;": "&amp;amp;",
    "$x$": r"\$x$",
    "~~x~~": r"\~\~x~~",
    "\\*": r"\\*",
    "https://a.b": r"https\://a.b",
    "_https://a.b": r"_https\://a.b",
    "www.a.b": r"www\.a.b",
    "---": r"\---",
    "a #": r"a \#",
    "[x]: y": r"\[x]: y",
    "[ ] y": r"\[ ] y",
}


@pytest.mark.parametrize("text", NAMES)
def test_a_name_that_is_no_markup_is_not_escaped(text: str) -> None:
    assert escape_markdown(text) == text


@pytest.mark.parametrize("text", ESCAPED)
def test_markup_is_escaped_where_it_starts(text: str) -> None:
    assert escape_markdown(text) == ESCAPED[text]


@given(st.text(st.sampled_from("ab评 .1\\`*_~$[]()<>#!|&;:-+=/x@{}^'\"\u0301")) | st.text())
@example("*a*b*")
@example("a__b_ _c_")
@example("\\|")
def test_any_text_is_shown_as_it_is_in_a_heading_a_paragraph_a_list_and_a_table(text: str) -> None:
    shown, written = escape_markdown(text), one_line(text)
    page = f"# {shown}\n\n{shown}\n\n- {shown}\n\n| {shown} | a |\n|---|---|\n| b | {shown} |\n"
    made = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(page)
    plain = html.escape(written).replace("&#x27;", "'")
    expected = [f"<h1>{plain}</h1>", f"<p>{plain}</p>" * bool(written), "<ul>", f"<li>{plain}</li>", "</ul>"]
    expected += ["<table>", "<thead>", "<tr>", f"<th>{plain}</th>", "<th>a</th>", "</tr>", "</thead>", "<tbody>"]
    expected += ["<tr>", "<td>b</td>", f"<td>{plain}</td>", "</tr>", "</tbody>", "</table>"]
    assert re.sub(r"\n", "", made) == "".join(expected)
