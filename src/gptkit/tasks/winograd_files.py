"""The 273 Winograd schemas: WSCollection.xml of Ernest Davis, or wsc273.jsonl, the same as JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from gptkit.errors import InputError
from gptkit.system.reading import require_regular, translate_read_errors
from gptkit.tasks.cells import text_of
from gptkit.tasks.forms import cell, find_form, text_cell
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import open_table
from gptkit.text.examples import Example

SIZE = 273  # the schemas that all published figures are on; later ones were appended
_SOURCE = "cs.nyu.edu/~davise/papers/WinogradSchemas/WSCollection.xml"
_FIX = "fetch the file again"

Schema = dict[str, list[str]]  # the texts of a schema's elements by name


def winograd(data: str | None) -> Loaded:
    """Return the first 273 schemas: fields = (text before the pronoun, pronoun, text after it, two referents), label.

    A note tells of others, and of a file with fewer.
    """
    [path] = find_form("winograd", data, [("WSCollection.xml",), ("wsc273.jsonl",)], source=_SOURCE)
    examples = list(_of_xml(path) if path.suffix.lower() == ".xml" else _of_json(path))
    notes = [f"{path}: of {len(examples)} schemas the first {SIZE} are taken"] if len(examples) > SIZE else []
    if len(examples) < SIZE:
        notes = [f"{path}: {len(examples)} schemas, where published figures are on {SIZE}"]
    return loaded(examples[:SIZE], notes)


def _of_json(path: Path) -> Iterator[Example]:
    for number, (where, row) in enumerate(open_table(path, "jsonl").rows):
        text, pronoun, place = text_cell(row, "text", where), text_cell(row, "pronoun", where), row.get("pronoun_loc")
        if type(place) is not int or not text[max(0, place) :].startswith(pronoun):
            raise InputError(f"the pronoun {pronoun!r} is not at pronoun_loc {place!r}", where=where, fix=_FIX)
        parts = text[:place], pronoun, text[place + len(pronoun) :]
        yield _example(parts, cell(row, "options", where), cell(row, "label", where), where, number)


def _of_xml(path: Path) -> Iterator[Example]:
    for number, (where, schema) in enumerate(_schemas(path)):
        before, pronoun, after = (_only(schema, f"text/{key}", where) for key in ("txt1", "pron", "txt2"))
        joint = "" if after[:1] in {*".,;:!?'", ""} else " "
        parts = before + " " * bool(before), pronoun, joint + after
        letter = _only(schema, "correctAnswer", where).rstrip(".")
        label = {"A": 0, "B": 1}.get(letter, letter)
        yield _example(parts, schema.get("answers/answer"), label, where, number)


def _example(parts: tuple[str, str, str], referents: Any, label: Any, where: str, number: int) -> Example:
    before, pronoun, after = parts
    if not pronoun or not after.strip():
        raise InputError("nothing to resolve: a pronoun and text after it are needed", where=where, fix=_FIX)
    if not isinstance(referents, list) or len(referents) != 2:
        raise InputError("not two referents to choose from", where=where, fix=_FIX)
    if type(label) is not int or label not in (0, 1):
        raise InputError(f"unknown label {label!r}", where=where, fix="it is one of the two referents")
    choices = tuple([text_of(one, "referent", where).strip() for one in referents])
    return Example((before, pronoun, after, choices), label, where, str(number))


def _only(schema: Schema, name: str, where: str) -> str:
    texts = schema.get(name, [])
    if len(texts) != 1:
        raise InputError(f"{len(texts)} elements {name} in a schema", where=where, fix=_FIX)
    return texts[0]


def _schemas(path: Path) -> list[tuple[str, Schema]]:
    """Return the texts of each schema, white space made single, with the line where it begins."""
    collector = _Collector(path)
    with translate_read_errors(path):
        require_regular(path)
        content = path.read_bytes()
    try:
        collector.parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        where = f"{path}:{collector.parser.CurrentLineNumber}"
        raise InputError(f"not valid XML: {error}", where=where, fix=_FIX) from None
    if not collector.schemas:
        raise InputError("no <schema> in the file", where=f"{path}:1", fix=_FIX)
    return collector.schemas


class _Collector:
    """Handlers of an XML parser that keep texts only; a DOCTYPE, which could define entities, is refused."""

    def __init__(self, path: Path) -> None:
        self.schemas: list[tuple[str, Schema]] = []
        self._path = path
        self._open: list[str] = []
        self._text = ""
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def _refuse(self, *declared: object) -> None:
        where = f"{self._path}:{self.parser.CurrentLineNumber}"
        raise InputError("a DOCTYPE, which the authors' file has not", where=where, fix="remove it")

    def _start(self, name: str, attributes: object) -> None:
        if name == "schema":
            self.schemas.append((f"{self._path}:{self.parser.CurrentLineNumber}", {}))
            self._open = []
        else:
            self._open.append(name)
        self._text = ""

    def _characters(self, text: str) -> None:
        self._text += text

    def _end(self, name: str) -> None:
        if self.schemas and self._open and name != "schema":
            self.schemas[-1][1].setdefault("/".join(self._open), []).append(" ".join(self._text.split()))
            self._open.pop()
        self._text = ""
