"""Text from the Hugging Face hub, streamed once into the cache as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from gptkit.errors import InputError
from gptkit.system.cache import cache_path, cached_file
from gptkit.system.files import HashedFile
from gptkit.system.hub import load_dataset, translate_dataset_errors
from gptkit.system.reading import unusable_character

FORMAT = 1


class HubText(NamedTuple):
    """A .jsonl file in the cache that holds the train split of a hub data set, or its beginning."""

    path: Path
    licence: str | None
    left_out: int  # rows without usable text


def download_text(name: str, *, characters: int | None) -> HubText:
    """Return the text of `hf:NAME[:CONFIG]`, read only as far as `characters` characters need (None: all of it).

    What is in the cache needs no network.
    """
    dataset, _, configuration = name.removeprefix("hf:").partition(":")
    if not dataset:
        raise InputError(f"no data set named in {name!r}", where="DATA", fix="write hf:NAME or hf:NAME:CONFIG")
    path = cache_path("hub", ".jsonl", FORMAT, dataset, configuration, characters)

    def write(file: HashedFile) -> dict[str, Any]:
        rows = load_dataset(name, split="train", streaming=True)
        columns = getattr(rows, "column_names", None)
        if columns is not None and "text" not in columns:
            message = f'no column "text" (columns: {", ".join(columns)})'
            raise InputError(message, where=name, fix="choose a data set or :CONFIG with a text column")
        with translate_dataset_errors(name):
            return _write_rows(name, rows, characters, file)

    facts = cached_file(path, write, need=lambda file: max(file.size, characters or 0))
    return HubText(path, facts["licence"], facts["left_out"])


def _write_rows(name: str, rows: Any, characters: int | None, file: HashedFile) -> dict[str, Any]:
    written = documents = left_out = 0
    for row in rows:
        text = row.get("text")
        if not (isinstance(text, str) and text.strip()) or unusable_character(text):
            left_out += 1
            continue
        file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
        documents += 1
        written += len(text)
        if characters is not None and written >= characters:
            break
    if not documents:
        raise InputError("no text in this data set", where=name, fix="choose another data set or :CONFIG")
    licence = getattr(getattr(rows, "info", None), "license", None) or None
    return {"name": name, "documents": documents, "left_out": left_out, "licence": licence}
