"""A YAML file as entries that know their line: nothing in it is executed, and no key is there twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.errors import UsageError, suggest
from gptkit.plain_yaml import plain_events, read_text

if TYPE_CHECKING:
    import yaml


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
