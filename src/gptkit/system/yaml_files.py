"""Plain YAML: scalars, lists and mappings; no objects, anchors, aliases, tags, second documents or huge files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptkit.errors import UsageError, suggest
from gptkit.system import reading

if TYPE_CHECKING:
    import yaml


MAX_BYTES = 1_000_000
DEEPEST = 20  # a list in a list in a list ...
CURE = "write `key: value` lines"


def read_yaml(path: Path, what: str, *, missing: str, fix: str = CURE, empty: str = "{}") -> Entry:
    """Return the root of a YAML file, `empty` for a file without one; UsageError with file:line for anything else.

    `what` the file should hold ("a recipe"); `missing` is the cure for a file that cannot be read, `fix` for its text.
    """
    import yaml

    class PlainLoader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            nests = isinstance(event, yaml.CollectionStartEvent)
            self.depth += nests
            problem = None
            if getattr(event, "anchor", None):  # an alias has one too
                problem = "an anchor or alias"
            elif getattr(event, "tag", None):
                problem = "a tag"
            elif self.depth > DEEPEST:
                problem = "a value nested too deeply"
            if problem:
                where = f"{path}:{event.start_mark.line + 1}"
                raise UsageError(f"{problem} in {what}", where=where, fix=fix)
            node = super().compose_node(parent, index)
            self.depth -= nests
            return node

    text = reading.read_text(path, what, most=MAX_BYTES, fix=missing, error=UsageError)
    try:
        node = yaml.compose(text, Loader=PlainLoader) or yaml.compose(empty)
        assert node is not None
        return Entry(node, path)
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        problem = str(error.problem).removeprefix("but ")  # "but found another document"
        raise UsageError(f"not YAML: {problem}", where=where, fix=fix) from None
    except yaml.YAMLError as error:
        raise UsageError(f"not YAML: {error}", where=str(path), fix=fix) from None


class Entry:
    """A value in the file: a scalar, a list or a mapping of entries; `where` is file:line."""

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
        return tuple(Entry(node, self.path) for node in self.node.value)

    def words(self, what: str) -> tuple[str, ...]:
        words = tuple(entry.word(what) for entry in self.items(what))
        if len(set(words)) < len(words):
            raise UsageError(f"{what} holds one value twice", where=self.where, fix="keep one of them")
        return words

    def is_list(self) -> bool:
        import yaml

        return isinstance(self.node, yaml.SequenceNode)

    def entries(self, what: str, known: Sequence[str]) -> dict[str, Entry]:
        """Return a mapping's entries; a key that is unknown or there twice is a UsageError."""
        found: dict[str, Entry] = {}
        for key, value in self.pairs(what):
            name = key.word("a key")
            if known and name not in known:
                raise UsageError(f"unknown key {name[:60]!r} in {what}", where=key.where, fix=suggest(name[:60], known))
            if name in found:
                raise UsageError(f"the key {name!r} is there twice", where=key.where, fix="keep one of them")
            found[name] = value
        return found

    def pairs(self, what: str) -> Iterator[tuple[Entry, Entry]]:
        """Yield a mapping's keys and values in the order of the file, duplicates included."""
        import yaml

        if not isinstance(self.node, yaml.MappingNode):
            raise UsageError(f"{what} has no `key: value` lines", where=self.where, fix=CURE)
        for key, value in self.node.value:
            yield Entry(key, self.path), Entry(value, self.path)

    def plain(self) -> Any:
        """Return the value as YAML means it: None, booleans, numbers, dates, text, and lists and dicts of them."""
        import yaml

        try:
            return yaml.SafeLoader("").construct_document(self.node)
        except (ValueError, yaml.YAMLError) as error:  # 2026-13-45 looks like a date
            reason = str(error).splitlines()[0]
            raise UsageError(f"not YAML: {reason}", where=str(self.path), fix=CURE) from None

    def scalar(self) -> str | None:
        """Return a word as it is written, None for YAML's null; UsageError for a list or a mapping."""
        import yaml

        if not isinstance(self.node, yaml.ScalarNode):
            raise UsageError("a nested value", where=self.where, fix=CURE)
        return None if self.node.tag.endswith(":null") else str(self.node.value)
