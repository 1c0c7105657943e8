"""Read text, strict JSON and plain YAML; whatever is wrong becomes one error with file, line and fix.

Strict JSON has no NaN, duplicate keys or endless nesting. Plain YAML has only scalars, lists and mappings: no objects,
anchors, aliases, tags or second documents, and no huge files.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import stat
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gptkit.errors import GptkitError, InputError, UsageError, suggest
from gptkit.system.encodings import MARK, UTF8, decode_text, encoding_of, undecodable, without_marks

if TYPE_CHECKING:
    import yaml

LARGEST_JSON = 1 << 28
LARGEST_YAML = 1_000_000
DEEPEST_YAML = 20  # levels of nesting
FIX_YAML = "write `key: value` lines"
_REPAIR = "repair the file, or download it again"
_CHECK = "check the path"
_BUFFER_BYTES = 1 << 20
_POINTER, _POINTER_BYTES = b"version https://git-lfs.github.com/spec/", range(120, 200)


@contextmanager
def translate_read_errors(path: Path, *, fix: str = _CHECK, error: type[GptkitError] = InputError) -> Iterator[None]:
    """Translate errors of the operating system and gzip while reading a file; `fix` is for a missing one."""
    where = str(path)
    try:
        yield
    except FileNotFoundError:
        raise error("file not found", where=where, fix=fix) from None
    except PermissionError:
        fix = "make it readable (chmod +r FILE)"
        raise error("file cannot be read: permission denied", where=where, fix=fix) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        message = f"damaged or truncated gzip file: {problem}"
        raise error(message, where=where, fix="fetch or compress it again") from None
    except OSError as problem:
        raise error(f"file cannot be read: {problem.strerror or problem}", where=where, fix=fix) from None


@contextmanager
def translate_parquet_errors(where: str) -> Iterator[None]:
    """Translate pyarrow's errors about a file's content to InputError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # about the system, not the content
        reason = (str(error) or type(error).__name__).splitlines()[0]
        message = f"not a readable parquet file: {reason}"
        raise InputError(message, where=where, fix="write or fetch it again") from None


def require_regular(
    path: Path,
    fix: str = "save the text to a file and pass that",
    *,
    missing: str = _CHECK,
    error: type[GptkitError] = InputError,
) -> int:
    """Return the size of a regular file; raise for a FIFO, on which `open` would hang, a directory, a device ...

    A Git LFS pointer, which stands for a file that was not fetched, is refused too.
    """
    with translate_read_errors(path, fix=missing, error=error):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise error("not a regular file", where=str(path), fix=fix)
        if status.st_size in _POINTER_BYTES:
            with open(path, "rb") as file:
                if file.read(len(_POINTER)) == _POINTER:
                    raise error("a Git LFS pointer, not the file itself", where=str(path), fix="run git lfs pull")
    return status.st_size


def read_text(
    path: Path, what: str, *, most: int, fix: str, missing: str = _CHECK, error: type[GptkitError] = InputError
) -> str:
    """Return the text of a file that should hold `what` ("the recipe") in at most `most` bytes, by default UTF-8.

    `missing` is the fix for a file that cannot be opened, `fix` for any other problem.
    """
    if require_regular(path, fix, missing=missing, error=error) > most:
        raise error(f"{what} is larger than {most // 10**6:,} MB", where=str(path), fix=fix)
    with translate_read_errors(path, fix=missing, error=error):
        raw = path.read_bytes()
    return decode_text(raw, str(path), default=UTF8, error=error)


def given_text(argument: str, what: str, where: str, say: Callable[[str], None]) -> str:
    """Return the text of an argument, for `-` that of stdin without its last line break; see `without_marks`."""
    if argument != "-":
        if unusable_character(argument):  # invalid bytes of an argument are surrogates here
            raise UsageError(f"{what} is not UTF-8", where=where, fix="convert it to UTF-8")
        with suppress(OSError, ValueError):  # a text that is too long for a path, or has a NUL character
            if Path(argument).is_file():
                say(f"{what} is the name of a file; to read it as one text, write: - < {shlex.quote(argument)}")
        return without_marks(argument)
    if sys.stdin is None:
        raise UsageError("stdin is closed", where="stdin", fix=f"pass {what} as an argument")
    if sys.stdin.isatty():
        say(f"reading {what} from stdin until Ctrl-D")
    return decode_text(sys.stdin.buffer.read(), "stdin").removesuffix("\n")


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Open a text file, plain or gzip: without a byte order mark, and with every line end as LF if `newline` is None.

    Whatever is wrong with it is an InputError, also while it is being read.
    """
    with translate_read_errors(path):
        require_regular(path)
        with _opened(path) as file:
            encoding = encoding_of(file.peek(4), str(path))
            try:
                yield io.TextIOWrapper(file, encoding, newline=newline)
            except UnicodeError:
                raise not_text(path) from None


def not_text(path: Path) -> GptkitError:
    """Return the error for a file that does not decode, or that has a NUL; see `undecodable`."""
    with _opened(path) as file:
        return undecodable(file, str(path), encoding_of(file.peek(4), str(path)))


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    with open(path, "rb") as raw:
        compressed = raw.peek(2).startswith(b"\x1f\x8b")
        named_gzip = path.name.lower().endswith(".gz")
        if compressed and not named_gzip:
            fix = f"decompress it: gzip -dc < {path.name} > plain-{path.name}"
            raise InputError("compressed by gzip, but not named .gz", where=str(path), fix=fix)
        if named_gzip and not compressed and os.fstat(raw.fileno()).st_size > 0:
            fix = f"rename it to {path.name[:-3]}"
            raise InputError("named .gz, but not compressed by gzip", where=str(path), fix=fix)
        yield io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES) if compressed else raw


def invalid_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    """Return the error for bytes that are not UTF-8 where no other encoding can be meant, quoting them."""
    found = " ".join(f"0x{byte:02x}" for byte in error.object[error.start : error.end])
    return InputError(f"not valid UTF-8: {found} ({error.reason})", where=where, fix="correct the bytes")


def unusable_character(text: str) -> str | None:
    """Describe a character of `text` that a UTF-8 text file cannot hold (NUL, lone surrogate); None without one."""
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (\\u{ord(text[error.start]):04x})"
    return None


def json_object(text: str, where: str, fix: str) -> dict[str, Any]:
    """Parse a JSON object; InputError at `where` (file:line) for anything else."""
    return _as_object(_parsed(text, where, fix), where, fix)


def json_string(line: str, key: str, where: str) -> str:
    """Parse a JSON object and return the string under `key`; InputError at `where` (file:line) for anything else."""
    fix = f"""each line must be one JSON object such as {{"{key}": "..."}} (of an array: jq -c '.[]' FILE)"""
    row = json_object(line, where, fix)
    if key not in row:
        keys = ", ".join(map(repr, list(row)[:8])) or "none"
        raise InputError(f'no "{key}" in this line (keys: {keys})', where=where, fix=f"rename its key to {key}")
    if not isinstance(row[key], str):
        raise InputError(f'"{key}" is a JSON {json_name(row[key])}, not a string', where=where, fix=fix)
    return str(row[key])


def read_json(path: Path) -> Any:
    """Read a JSON file; InputError, with the line, for anything but valid JSON in UTF-8."""
    return _parsed(read_text(path, "the JSON file", most=LARGEST_JSON, fix=_REPAIR), str(path), _REPAIR, is_file=True)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; InputError for anything else."""
    return _as_object(read_json(path), str(path), "write {...}")


def _as_object(value: Any, where: str, fix: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"this is a JSON {json_name(value)}, but an object is needed", where=where, fix=fix)
    return value


def json_name(value: object) -> str:
    """Return JSON's name for the type of a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _parsed(text: str, where: str, fix: str, *, is_file: bool = False) -> Any:
    try:
        return _DECODER.decode(text.removeprefix(MARK))  # of files that were joined, each begins with its own
    except RecursionError:
        problem = "nested too deeply"
    except json.JSONDecodeError as error:
        problem = error.msg if is_file else str(error)
        where = f"{where}:{error.lineno}" if is_file else where
    except ValueError as error:
        problem = str(error)
    raise InputError(f"not valid JSON: {problem}", where=where, fix=fix)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number (write null)")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {key!r}")
    return row


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)


def read_yaml(path: Path, what: str, *, missing: str, fix: str = FIX_YAML, empty: str = "{}") -> Entry:
    """Return the root of a YAML file, that of the text `empty` if the file has no value; UsageError with the line.

    `what` is what the file should hold ("the recipe"); `missing` is the fix for a file that cannot be opened, `fix` for
    invalid content.
    """
    import yaml

    class PlainLoader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            nests = isinstance(event, yaml.CollectionStartEvent)
            self.depth += nests
            problem = None
            if getattr(event, "anchor", None):  # aliases have one too
                problem = "must not contain anchors or aliases"
            elif getattr(event, "tag", None):
                problem = "must not contain tags"
            elif self.depth > DEEPEST_YAML:
                problem = "nests values too deeply"
            if problem:
                where = f"{path}:{event.start_mark.line + 1}"
                raise UsageError(f"{what} {problem}", where=where, fix=fix)
            node = super().compose_node(parent, index)
            self.depth -= nests
            return node

    text = read_text(path, what, most=LARGEST_YAML, fix=missing, missing=missing, error=UsageError)
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
    """A value of a YAML file: a scalar, a list or a mapping of entries; `where` is file:line."""

    def __init__(self, node: yaml.Node, path: Path) -> None:
        self.node = node
        self.kind = type(node).__name__
        self.path = path
        self.where = f"{path}:{node.start_mark.line + 1}"

    def word(self, what: str) -> str:
        """Return a non-empty scalar as written; the UsageError for anything else calls it `what`."""
        if self.kind != "ScalarNode" or not self.node.value.strip():
            raise UsageError(f"{what} is not one word or number", where=self.where, fix="write one value")
        if "\0" in self.node.value:
            raise UsageError(f"{what} contains a NUL character", where=self.where, fix="leave it out")
        return str(self.node.value)

    def items(self, what: str, *, fix: str | None = None) -> tuple[Entry, ...]:
        if self.kind != "SequenceNode" or not self.node.value:
            problem = "empty" if self.kind == "SequenceNode" else "not a list"
            raise UsageError(f"{what} is {problem}", where=self.where, fix=fix or f"write {what}: [one, another]")
        return tuple(Entry(node, self.path) for node in self.node.value)

    def words(self, what: str) -> tuple[str, ...]:
        words = tuple(entry.word(what) for entry in self.items(what))
        if len(set(words)) < len(words):
            raise UsageError(f"{what} lists a value twice", where=self.where, fix="keep one of them")
        return words

    def is_list(self) -> bool:
        return self.kind == "SequenceNode"

    def entries(self, what: str, known: Sequence[str]) -> dict[str, Entry]:
        """Return a mapping's entries; UsageError for a duplicate key, or one not in `known` (if not empty)."""
        if self.kind != "MappingNode":
            raise UsageError(f"{what} contains no `key: value` lines", where=self.where, fix=FIX_YAML)
        found: dict[str, Entry] = {}
        for key, value in ((Entry(key, self.path), Entry(value, self.path)) for key, value in self.node.value):
            name = key.word("a key")
            if known and name not in known:
                raise UsageError(f"unknown key {name[:60]!r} in {what}", where=key.where, fix=suggest(name[:60], known))
            if name in found:
                raise UsageError(f"duplicate key {name!r}", where=key.where, fix="keep one of them")
            found[name] = value
        return found

    def plain(self) -> Any:
        """Return the value with YAML's types: None, booleans, numbers, dates, strings, lists and dicts."""
        import yaml

        try:
            return yaml.SafeLoader("").construct_document(self.node)
        except (ValueError, yaml.YAMLError) as error:  # 2026-13-45 looks like a date
            reason = str(error).splitlines()[0]
            raise UsageError(f"not YAML: {reason}", where=str(self.path), fix=FIX_YAML) from None

    def scalar(self) -> str | None:
        """Return a scalar as written, None for YAML's null; UsageError for a list or a mapping."""
        if self.kind != "ScalarNode":
            raise UsageError("nested values are not allowed", where=self.where, fix=FIX_YAML)
        return None if self.node.tag.endswith(":null") else str(self.node.value)
