"""Text of the Hugging Face hub: streamed, and written once into the cache as JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gptkit.errors import GptkitError, InputError
from gptkit.system.cache import cache_directory, cached_file
from gptkit.system.files import HashedFile

FORMAT = 1


class HubText(NamedTuple):
    """A .jsonl file in the cache that holds the train split of a hub data set, or its beginning."""

    path: Path
    licence: str | None
    left_out: int  # rows without usable text


def materialise(
    name: str,
    *,
    characters: int | None,
    load: Callable[..., Any] | None = None,
    probe: Callable[[str], None] | None = None,
) -> HubText:
    """Return the text of `hf:NAME[:CONFIG]`, read only as far as `characters` characters need (None: all of it).

    What is in the cache needs no network. `load` and `probe` stand in for datasets.load_dataset and the hub's probe.
    """
    dataset, _, configuration = name.removeprefix("hf:").partition(":")
    if not dataset:
        raise InputError(f"no data set named in {name!r}", where="DATA", fix="write hf:NAME or hf:NAME:CONFIG")
    key = json.dumps([FORMAT, dataset, configuration, characters])
    path = cache_directory() / "hub" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.jsonl"

    def write(file: HashedFile) -> dict[str, Any]:
        (probe or _probe)(name)
        rows = _stream(name, dataset, configuration or None, load or _load_dataset)
        return _write_rows(name, rows, characters, file)

    facts = cached_file(path, write, need=lambda file: max(file.size, characters or 0))
    return HubText(path, facts["licence"], facts["left_out"])


def _probe(name: str) -> None:
    from gptkit.system.hub import require_hub

    require_hub(name)


def _load_dataset(*arguments: Any, **options: Any) -> Any:
    from datasets import load_dataset

    return load_dataset(*arguments, **options)


def _stream(name: str, dataset: str, configuration: str | None, load: Callable[..., Any]) -> Any:
    try:
        rows = load(dataset, configuration, split="train", streaming=True)
    except GptkitError:
        raise
    except Exception as error:  # the library raises some twenty kinds, from its own to those of three HTTP clients
        raise _failed(name, error) from error
    columns = getattr(rows, "column_names", None)
    if columns is not None and "text" not in columns:
        message = f'no column "text" (columns: {", ".join(columns)})'
        raise InputError(message, where=name, fix="choose a data set or :CONFIG with a text column")
    return rows


def _write_rows(name: str, rows: Any, characters: int | None, file: HashedFile) -> dict[str, Any]:
    written = documents = left_out = 0
    for text in _texts(name, rows):
        if text is None:
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


def _texts(name: str, rows: Iterable[Any]) -> Iterable[str | None]:
    """Yield each row's text, None for one that is blank or cannot be kept as UTF-8 text."""
    stream = iter(rows)
    while True:
        try:
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:
            raise _failed(name, error) from error
        text = row.get("text")
        usable = isinstance(text, str) and text.strip() and "\0" not in text and _encodes(text)
        yield text if usable else None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _failed(name: str, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    fix = "check the name, its :CONFIG and the network; a gated one needs HF_TOKEN"
    return InputError(f"the hub data set cannot be read: {reason}", where=name, fix=fix)
