"""An HTML page in one file: its numbers as a block of JSON, the scripts that draw them, and its style.

It fetches nothing. A content-security policy allows the page's own scripts and style by their hashes and nothing else,
so that no text can become code. html/ has the style and the scripts that all pages share.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from gptkit.system.writing import json_text

SHARED = Path(__file__).with_name("html")


def page_text(title: str, scripts: Sequence[Path], styles: Sequence[Path], data: Mapping[str, object]) -> str:
    """Return the whole page; the scripts find `data` in the element of that name, and run in their order."""
    sources = [path.read_text(encoding="utf-8") for path in scripts]
    style = "".join(path.read_text(encoding="utf-8") for path in styles)
    page = Template((SHARED / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=title,
        policy=_policy(sources, style),
        style=style,
        data=_harmless(json_text(data, separators=(",", ":"))),
        scripts="\n".join(f"<script>{source}</script>" for source in sources),
    )


def _policy(scripts: list[str], style: str) -> str:
    allowed = " ".join(map(_hash, scripts))
    return f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _harmless(json: str) -> str:
    """Return JSON in which no text can end the element that holds it."""
    return json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
