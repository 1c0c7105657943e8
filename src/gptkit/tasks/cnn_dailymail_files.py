"""CNN/Daily Mail's test articles with their highlights: rows of the hub's files, or the authors' stories.

    test*.parquet, test*.jsonl    a row an article: `article`, `highlights` (a sentence a line), perhaps `id`
    all_test.txt                  a URL a line; its story lies in cnn/stories or dailymail/stories as SHA1(URL).story

A story is its article, a paragraph a line, then a line `@highlight` before each highlight.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gptkit.errors import InputError
from gptkit.tasks.forms import cell, find_form, refuse_repeated_examples, text_cell
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import lines, open_table
from gptkit.text.examples import Example

FORMS = (("test*.parquet",), ("test*.jsonl",), ("all_test.txt",), ("url_lists/all_test.txt",))
STORY_FOLDERS = (".", "cnn/stories", "dailymail/stories", "stories", "cnn_stories", "dailymail_stories")
_HIGHLIGHT = "@highlight"


def cnn_dailymail(data: str | None) -> Loaded:
    """Return the examples (article, highlights) in the order of their file.

    Raises UsageError without data, InputError, with file and line, for whatever is not as it should be.
    """
    [path] = find_form("cnn-dm", data, FORMS, source="cnn_dailymail 3.0.0 of the hub, or the authors' stories")
    kinds = {".parquet": _rows, ".jsonl": _rows, ".txt": _stories}
    if path.suffix not in kinds:
        fix = "name a .parquet or .jsonl of article and highlights, or all_test.txt beside the stories"
        raise InputError("neither .parquet, .jsonl nor .txt", where=str(path), fix=fix)
    examples = kinds[path.suffix](path)
    if not examples:
        raise InputError("no article in this file", where=f"{path}:1", fix="fetch it again")
    refuse_repeated_examples(examples)
    return loaded(examples, ())


def _rows(path: Path) -> list[Example]:
    examples = []
    for number, (where, row) in enumerate(open_table(path, "parquet" if path.suffix == ".parquet" else "jsonl").rows):
        identifier = str(cell(row, "id", where)) if "id" in row else str(number)
        fields = (text_cell(row, "article", where), text_cell(row, "highlights", where))
        examples.append(Example(fields, None, where, identifier))
    return examples


def _stories(listed: Path) -> list[Example]:
    root = listed.parent.parent if listed.parent.name == "url_lists" else listed.parent
    examples = []
    for number, url in lines(listed):
        name = hashlib.sha1(url.strip().encode()).hexdigest()
        path = next((one for folder in STORY_FOLDERS if (one := root / folder / f"{name}.story").is_file()), None)
        if path is None:
            fix = f"{name}.story belongs in {root}/cnn/stories or {root}/dailymail/stories"
            raise InputError("no story for this URL", where=f"{listed}:{number}", fix=fix)
        examples.append(Example(_story(path), None, f"{path}:1", name))
    return examples


def _story(path: Path) -> tuple[str, str]:
    """Return a story's article and highlights, a paragraph or highlight a line."""
    article: list[str] = []
    highlights: list[str] = []
    part = article
    for _, line in lines(path):
        text = line.strip()
        if text == _HIGHLIGHT:
            part = highlights
        elif text:
            part.append(text)
    for name, texts in (("article", article), (_HIGHLIGHT, highlights)):
        if not texts:
            raise InputError(f"a story without {name}", where=f"{path}:1", fix="fetch it again, or drop its URL")
    return "\n".join(article), "\n".join(highlights)
