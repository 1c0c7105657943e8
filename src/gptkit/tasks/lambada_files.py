"""LAMBADA as OpenAI distributes it: lambada_test.jsonl, a passage on each line, with its punctuation and case."""

from __future__ import annotations

from gptkit.errors import InputError
from gptkit.tasks.forms import find_form, text_cell
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import open_table
from gptkit.text.examples import Example

_SOURCE = "openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl"


def lambada(data: str | None) -> Loaded:
    """Return the passages: fields = (text,), without label, numbered as in the file."""
    [path] = find_form("lambada", data, [("lambada_test.jsonl",), ("lambada*.jsonl",)], source=_SOURCE)
    examples = []
    for number, (where, row) in enumerate(open_table(path, "jsonl").rows):
        text = text_cell(row, "text", where)
        if " " not in text.strip():
            raise InputError("no space, before which the context is", where=where, fix="give at least two words")
        if text != text.rstrip(" "):
            raise InputError("a space after the last word", where=where, fix="end the passage with the word to guess")
        examples.append(Example((text,), None, where, str(number)))
    return loaded(examples)
