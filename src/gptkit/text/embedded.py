"""The embedded corpus: the documentation that ships with every Python, about 2 MB of English.

Its texts are the entries of pydoc_data.topics and the docstrings of the standard library, read from the source files
with `ast`: nothing is imported or executed. A text that occurs in several places counts only where it comes first.
"""

from __future__ import annotations

import ast
import gc
import inspect
import platform
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from gptkit.errors import GptkitError, InputError
from gptkit.system.cache import cache_path, cached_json
from gptkit.system.reading import unusable_character

FORMAT = 1
LICENCE = "PSF-2.0 (the documentation of Python's standard library, (c) Python Software Foundation)"

# Tests and demo programs address their own developers, and pydoc_data is read as topics.
_SKIPPED_PACKAGES = {"test", "idlelib", "lib2to3", "turtledemo", "pydoc_data"}
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "__pycache__"}
_TOPICS = "pydoc_data.topics"

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class EmbeddedDocument:
    """A docstring, or a topic of the language reference (of package pydoc_data, with its name as qualname)."""

    text: str
    package: str  # asyncio
    module: str  # asyncio.events
    qualname: str  # Handle.cancel; "" for the module's own docstring

    @property
    def group(self) -> str:
        """The module or topic: the unit that is never split between training and validation text."""
        return f"topic:{self.qualname}" if self.module == _TOPICS else f"module:{self.module}"


@cache
def embedded_documents() -> tuple[EmbeddedDocument, ...]:
    """Return all topics and docstrings: topics first, then modules by name, each in source order.

    The first call parses the standard library, which takes some seconds, and caches the result for this Python build.
    """
    path = cache_path("embedded", ".json", FORMAT, sys.version, platform.platform(), str(_library()))
    try:
        rows = cached_json(path, lambda: [asdict(document) for document in _distinct()])
        found = [EmbeddedDocument(**row) for row in rows]
    except GptkitError:  # an unusable cache costs only time
        found = _distinct()
    if not found:
        message = "this Python comes without the sources of its standard library"
        raise InputError(message, where=str(_library()), fix="pass a text file: gptkit pretrain book.txt")
    return tuple(found)


def embedded_topics() -> list[str]:
    """Return the texts of the language reference's topics, by name: English that takes no second to read."""
    return [text for _, text in _topics(_library())]


def embedded_texts() -> list[tuple[str, str]]:
    """Return (group, text) of the documents that a model trains on: a topic each, or all docstrings of a module.

    A module's docstrings are in source order, each headed by its name.
    """
    texts = []
    for group, members in groupby(embedded_documents(), key=lambda document: document.group):
        parts = []
        for document in members:
            heading = "" if document.module == _TOPICS else f"{document.qualname or document.module}\n\n"
            parts.append(heading + document.text)
        texts.append((group, "\n\n".join(parts) + "\n"))
    return texts


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _distinct() -> list[EmbeddedDocument]:
    """Return the documents with copies removed."""
    by_text: dict[str, EmbeddedDocument] = {}
    was_enabled = gc.isenabled()
    gc.disable()  # syntax trees have no reference cycles, and looking for them is slow in a large process
    try:
        for raw, package, module, qualname in _read_all():
            text = inspect.cleandoc(raw).strip()
            if text and not unusable_character(text):
                by_text.setdefault(text, EmbeddedDocument(text, package, module, qualname))
    finally:
        if was_enabled:
            gc.enable()
    return list(by_text.values())


def _read_all() -> Iterator[tuple[str, str, str, str]]:
    """Yield (text, package, module, qualname) of all topics and docstrings, copies included."""
    library = _library()
    for name, text in _topics(library):
        yield text, "pydoc_data", _TOPICS, name
    for package in sorted(sys.stdlib_module_names - _SKIPPED_PACKAGES):
        for path in _sources(library, package):
            parts = path.relative_to(library).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            for qualname, node in _documented(_statements(path), ""):
                docstring = ast.get_docstring(node, clean=False)
                if docstring is not None:
                    yield docstring, package, module, qualname


def _topics(library: Path) -> Iterator[tuple[str, str]]:
    for statement in _statements(library / "pydoc_data" / "topics.py").body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            yield from sorted(ast.literal_eval(statement.value).items())


def _sources(library: Path, name: str) -> list[Path]:
    if (library / f"{name}.py").is_file():
        return [library / f"{name}.py"]
    if name == "encodings":  # its other files are tables without documentation
        return [library / name / "__init__.py"]
    paths = (library / name).rglob("*.py")
    return sorted(path for path in paths if not _SKIPPED_FOLDERS & set(path.relative_to(library).parts))


def _statements(path: Path) -> ast.Module:
    """Return the syntax tree of a file, an empty one if this Python cannot read or parse it."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _documented(node: _Documented, qualname: str) -> Iterator[tuple[str, _Documented]]:
    """Yield (qualname, node) for everything that may have a docstring, outermost first, also inside `if` and `try`."""
    yield qualname, node
    inside: list[ast.AST] = list(node.body)
    while inside:
        statement = inside.pop(0)
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(statement, f"{qualname}.{statement.name}".lstrip("."))
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            inside[:0] = statement.body + getattr(statement, "orelse", [])
