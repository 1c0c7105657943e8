"""YAML that can do no more than say words: its parser's events, never an object; no anchor, alias, tag or huge file."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.errors import UsageError, suggest

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


class Entry:
    """A value of the file: a word, a list of words, or a mapping of entries; `where` is file:line."""

    def __init__(self, node: yaml.Node, path: Path) -> None:
        self.node = node
        self.path = path
        self.where = f"{path}:{node.start_mark.line + 1}"

    def word(self, what: str) -> str:
        import yaml

        if not isinstance(self.node, yaml.ScalarNode) or not self.node.value.strip():
            raise UsageError(f"{what} is not one word or number", where=self.where, fix="write one value")
        if "\0" in self.node.value:
            raise UsageError(f"{what} contains a NUL character", where=self.where, fix="leave it out")
        return str(self.node.value)

    def items(self, what: str) -> tuple[Entry, ...]:
        import yaml

        if not isinstance(self.node, yaml.SequenceNode) or not self.node.value:
            raise UsageError(f"{what} is not a list", where=self.where, fix=f"write {what}: [one, another]")
        return tuple(Entry(one, self.path) for one in self.node.value)

    def words(self, what: str) -> tuple[str, ...]:
        words = tuple(one.word(what) for one in self.items(what))
        if len(set(words)) < len(words):
            raise UsageError(f"{what} holds one value twice", where=self.where, fix="keep one of them")
        return words

    def is_list(self) -> bool:
        import yaml

        return isinstance(self.node, yaml.SequenceNode)

    def entries(self, what: str, known: Sequence[str]) -> dict[str, Entry]:
        """Return a mapping's entries; a key that is unknown or there twice is a UsageError."""
        import yaml

        if not isinstance(self.node, yaml.MappingNode):
            fix = "write `key: value` lines"
            raise UsageError(f"{what} has no `key: value` lines", where=self.where, fix=fix)
        found: dict[str, Entry] = {}
        for key_node, value in self.node.value:
            key = Entry(key_node, self.path)
            name = key.word("a key")
            if known and name not in known:
                raise UsageError(f"unknown key {name[:60]!r} in {what}", where=key.where, fix=suggest(name[:60], known))
            if name in found:
                raise UsageError(f"the key {name!r} is there twice", where=key.where, fix="keep one of them")
            found[name] = Entry(value, self.path)
        return found


def read_entries(path: Path, *, what: str, fix: str, content: str) -> Entry:
    """Return the top of a YAML file; UsageError with file:line for whatever is no YAML.

    `what` the file holds ("a task"), `fix` what to name instead of it, `content` what an empty one lacks.
    """
    import yaml

    text = read_text(path, what=what, fix=fix)
    for _ in plain_events(path, text, what=what):
        pass  # it refuses what is more than words
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        raise UsageError("the file is empty", where=f"{path}:1", fix=f"write at least {content}")
    return Entry(node, path)
