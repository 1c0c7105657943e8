"""Terminal output: escape unsafe characters, detect whether to redraw and colour."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping
from typing import TextIO

_CONTROLS, _SURROGATES = "\x00-\x08\x0b-\x1f\x7f-\x9f", "\ud800-\udfff"
_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u200b\u2060-\u2064\ufeff\U000e0000-\U000e007f"  # not joiners, which scripts and emoji need
UNSAFE = _CONTROLS + _BIDIRECTIONAL + _INVISIBLE + _SURROGATES  # between the brackets of a pattern
_UNSAFE = re.compile(f"[{UNSAFE}]")
_LIVE_COLUMNS = 60


def open_standard_streams() -> bool:
    """Open closed standard streams on the null device; return whether stdout was open. A closed stdin stays None.

    Otherwise the next files to be opened would get their descriptors, and receive whatever libraries print.
    """
    had_stdout = sys.stdout is not None
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    return had_stdout


def safe_text(text: str) -> str:
    """Return `text` with every character that could control a terminal as a visible escape.

    These are C0 except newline and tab, DEL, C1, bidirectional marks, zero-width characters and lone surrogates.
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def is_live(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether a live display fits `stream`: a terminal wide enough for its lines."""
    return is_attended(stream, environment) and terminal_columns(stream, environment) >= _LIVE_COLUMNS


def is_attended(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether a person may be watching `stream`: a terminal, and not that of a CI job."""
    unattended = environment.get("GITHUB_ACTIONS") or environment.get("CI") or environment.get("TERM") == "dumb"
    return stream.isatty() and not unattended


def terminal_columns(stream: TextIO, environment: Mapping[str, str]) -> int:
    """Return the width of a terminal as rich finds it: COLUMNS, else what the terminal reports, else 80."""
    if (said := environment.get("COLUMNS", "")).isdecimal():
        return int(said)
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def has_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether to write colours to `stream`."""
    # On Windows only Windows Terminal understands escape codes.
    understood = os.name != "nt" or bool(environment.get("WT_SESSION"))
    return understood and is_attended(stream, environment) and not environment.get("NO_COLOR")
