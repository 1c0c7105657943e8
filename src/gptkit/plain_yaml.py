"""YAML that can do no more than say words: its parser's events, never an object; no anchor, alias, tag or huge file."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.errors import UsageError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1_000_000
DEEPEST = 20  # a list in a list in a list ...
CURE = "write `key: value` lines"


def read_text(path: Path, *, what: str, fix: str) -> str:
    """Return the text of a file that should hold `what` ("a recipe"); UsageError, with `fix`, for what is no such file.

    That is: nothing, no regular file, over 1 MB, not UTF-8.
    """
    where = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
            raise UsageError(f"{what} is a file, this is none", where=where, fix=fix)
        if status.st_size > MAX_BYTES:
            raise UsageError(f"{what} of over 1 MB", where=where, fix=fix)
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError("no such file", where=where, fix=fix) from None
    except OSError as error:
        raise UsageError((error.strerror or "unreadable").lower(), where=where, fix=fix) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"byte {error.start} is not UTF-8", where=f"{path}:{line}", fix="save it as UTF-8") from None


def plain_events(path: Path, text: str, *, what: str, fix: str = CURE) -> Iterator[yaml.Event]:
    """Yield the events of YAML from a file; UsageError with file:line for what is no YAML, or more than words."""
    import yaml

    depth = documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise refused(path, event, f"a second document in {what}", fix)
            if getattr(event, "anchor", None):
                raise refused(path, event, f"an anchor or alias in {what}", fix)
            if getattr(event, "tag", None):
                raise refused(path, event, f"a tag in {what}", fix)
            if depth > DEEPEST:
                raise refused(path, event, f"{what} nested too deeply", fix)
            yield event
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(f"not YAML: {error.problem}", where=where, fix=fix) from None
    except yaml.YAMLError as error:
        raise UsageError(f"not YAML: {error}", where=str(path), fix=fix) from None


def refused(path: Path, event: yaml.Event, problem: str, fix: str = CURE) -> UsageError:
    """Return the error of what stands at an event."""
    mark = event.start_mark
    return UsageError(problem, where=f"{path}:{mark.line + 1}" if mark else str(path), fix=fix)
