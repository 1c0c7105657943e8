"""The 273 Winograd schemas: which referent in place of the pronoun makes the sentence more likely?

Reads Ernest Davis's WSCollection.xml, or wsc273.jsonl, the same as JSON lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from gptkit.errors import InputError
from gptkit.scoring.choices import ChoiceProtocol, Pair, per_token
from gptkit.scoring.protocols import Published
from gptkit.tasks.files import cells, checked_text, find_files, open_table, opened, text_cells
from gptkit.tasks.task import Evaluation, Loaded, best_before_gpt1, loaded
from gptkit.text.examples import Example

SIZE = 273  # all published figures are on these schemas; others were appended later
_SOURCE = "cs.nyu.edu/~davise/papers/WinogradSchemas/WSCollection.xml"
_FIX = "fetch the file again"

Schema = dict[str, list[str]]  # the texts of a schema's elements by name

_POSSESSIVE = ("my", "your", "his", "her", "its", "our", "their")
_LOWERED = ("a", "an", "the", *_POSSESSIVE, "he", "she", "it", "they", "this", "that", "these", "those", "some")
_GPT2 = (
    Published("GPT-2 1542M", "accuracy", 0.7070, "GPT-2 paper, section 3.4"),
    Published("best published before GPT-2", "accuracy", 0.637, "Trinh and Le 2018, ensemble of 14 models"),
    *best_before_gpt1(0.626, "Trinh and Le 2018, one word-level model"),
)


def winograd(data: str | None) -> Loaded:
    """Return the first 273 schemas: fields = (text before the pronoun, pronoun, text after it, two referents), label.

    A note reports a file with more or fewer.
    """
    [path] = find_files("winograd", data, [("WSCollection.xml",), ("wsc273.jsonl",)], source=_SOURCE)
    examples = list(_of_xml(path) if path.suffix.lower() == ".xml" else _of_json(path))
    notes = [f"{path}: using the first {SIZE} of {len(examples)} schemas"] if len(examples) > SIZE else []
    if len(examples) < SIZE:
        notes = [f"{path}: only {len(examples)} of the {SIZE} schemas behind the published figures"]
    return loaded(examples[:SIZE], notes)


def _of_json(path: Path) -> Iterator[Example]:
    for number, (where, row) in enumerate(open_table(path, "jsonl").rows):
        *_, place, options, label = cells(row, where, "text", "pronoun", "pronoun_loc", "options", "label")
        text, pronoun = text_cells(row, where, "text", "pronoun")
        if type(place) is not int or not text[max(0, place) :].startswith(pronoun):
            raise InputError(f"the pronoun {pronoun!r} is not at pronoun_loc {place!r}", where=where, fix=_FIX)
        parts = text[:place], pronoun, text[place + len(pronoun) :]
        yield _example(parts, options, label, where, number)


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
        raise InputError("nothing to resolve: no pronoun, or no text after it", where=where, fix=_FIX)
    if not isinstance(referents, list) or len(referents) != 2:
        raise InputError("not two referents to choose from", where=where, fix=_FIX)
    if type(label) is not int or label not in (0, 1):
        raise InputError(f"unknown label {label!r}", where=where, fix="write A or B, in .jsonl 0 or 1")
    choices = tuple([checked_text(referent, "referent", where).strip() for referent in referents])
    return Example((before, pronoun, after, choices), label, where, str(number))


def _only(schema: Schema, name: str, where: str) -> str:
    texts = schema.get(name, [])
    if len(texts) != 1:
        raise InputError(f"{len(texts)} elements {name} in a schema, expected 1", where=where, fix=_FIX)
    return texts[0]


def _schemas(path: Path) -> list[tuple[str, Schema]]:
    """Return each schema's place (file:line) and its texts, with whitespace collapsed.

    A DOCTYPE, which could define entities, is refused.
    """
    schemas: list[tuple[str, Schema]] = []
    open_elements: list[str] = []
    text: list[str] = []
    parser = expat.ParserCreate()

    def place() -> str:
        return f"{path}:{parser.CurrentLineNumber}"

    def refuse(*declared: object) -> None:
        raise InputError("a DOCTYPE, which the authors' file does not have", where=place(), fix="remove it")

    def start(name: str, attributes: object) -> None:
        if name == "schema":
            schemas.append((place(), {}))
            open_elements.clear()
        else:
            open_elements.append(name)
        text.clear()

    def end(name: str) -> None:
        if schemas and open_elements and name != "schema":
            schemas[-1][1].setdefault("/".join(open_elements), []).append(" ".join("".join(text).split()))
            open_elements.pop()
        text.clear()

    parser.StartDoctypeDeclHandler, parser.CharacterDataHandler = refuse, text.append
    parser.StartElementHandler, parser.EndElementHandler = start, end
    with opened(path) as file:
        content = file.read()
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InputError(f"not valid XML: {error}", where=place(), fix=_FIX) from None
    if not schemas:
        raise InputError("no <schema> in the file", where=f"{path}:1", fix=_FIX)
    return schemas


def substituted(example: Example) -> list[str]:
    """Return the referents in the form that replaces the pronoun: case adapted, with 's for a possessive."""
    before, pronoun, after, referents = example.fields
    begins = not str(before).strip() or re.search(r"""[.!?]["'”]?\s*$""", str(before))
    # "her" is not possessive at the end of a clause.
    owns = str(pronoun).lower() in _POSSESSIVE and re.match(r"\s*[\w\"“]", str(after))
    fitted = []
    for referent in referents:
        first, space, others = referent.partition(" ")
        if begins:
            referent = referent[0].upper() + referent[1:]
        elif first.lower() in _LOWERED:
            referent = first.lower() + space + others
        fitted.append(f"{referent}'s" if owns and not referent.endswith("'s") else referent)
    return fitted


def partial_pairs(example: Example) -> list[Pair]:
    """Return the text up to and including the referent, and the text after it."""
    before, _, after, _ = example.fields
    return [(f"{before}{referent}", str(after)) for referent in substituted(example)]


def full_pairs(example: Example) -> list[Pair]:
    """Return the text before the referent, and the referent with the text after it."""
    before, _, after, _ = example.fields
    return [(str(before), f"{referent}{after}") for referent in substituted(example)]


_ROW = "with the referent in place of the pronoun; the log-probability of "
_PARTIAL = ChoiceProtocol(
    "partial", f"{_ROW}the text after it (Trinh and Le; GPT-2)", published=_GPT2, pairs=partial_pairs
)
_FULL = ChoiceProtocol("full", f"{_ROW}it and the text after it (Trinh and Le)", pairs=full_pairs)
_GPT1 = ChoiceProtocol(
    "gpt1",
    "with the referent in place of the pronoun, the mean log-probability per token of the text after it (GPT-1, "
    "section 5; its figure 2 uses another set, Rahman and Ng's)",
    pairs=partial_pairs,
    score=per_token,
)
WINOGRAD = Evaluation(
    "winograd",
    winograd,
    (_PARTIAL, _FULL, _GPT1),
    texts=lambda example: ("".join(map(str, example.fields[:3])),),
    fields=("before", "pronoun", "after", "referent"),
)

BENCHMARKS = (WINOGRAD,)
