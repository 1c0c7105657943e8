"""The files of a tokenizer: find them in a directory, and read vocabularies and merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.system.encodings import UTF8, decode_text
from gptkit.system.reading import (
    LARGEST_JSON,
    read_json,
    read_json_object,
    require_regular,
    translate_read_errors,
)
from gptkit.system.run_layout import MODEL, START, described_in

Merge = tuple[str, str]

LAYOUTS = (  # files that make up a tokenizer; of transformers' three layouts the first wins
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),  # BERT's, which Chinese GPT-2 models use
    ("encoder.json", "vocab.bpe"),
    ("encoder_bpe_40000.json", "vocab_40000.bpe"),
)
CONFIG_FILE = "tokenizer_config.json"
BESIDE = (CONFIG_FILE, "special_tokens_map.json", "added_tokens.json")  # optional files that affect the ids
CHAT_TEMPLATE = "chat_template.jinja"  # one that does not, but that transformers reads whole


def has_tokenizer(directory: Path) -> bool:
    """Return whether a directory has a tokenizer's files, or some of them."""
    return any((directory / name).is_file() for layout in LAYOUTS for name in layout)


def find_tokenizer(directory: Path, shown: str | None = None) -> tuple[Path, tuple[str, ...]]:
    """Return the folder and layout of a tokenizer's files; in a run, they are in model/ or else in start/."""
    for folder in dict.fromkeys((directory, directory / MODEL, directory / START, described_in(directory))):
        complete = [layout for layout in LAYOUTS if all((folder / name).is_file() for name in layout)]
        complete = [layout for layout in complete if layout not in LAYOUTS[1:3] or layout is complete[0]]
        if len(complete) > 1:
            found = " and ".join("+".join(layout) for layout in complete)
            fix = "keep only one of them in the directory"
            raise InputError(f"more than one tokenizer: {found}", where=str(folder), fix=fix)
        if complete:
            return folder, complete[0]
    half = [name for layout in LAYOUTS for name in layout if (directory / name).is_file()]
    found = f", but only {', '.join(half)}" if half else ""
    fix = "pass one that holds " + ", or ".join("+".join(layout) for layout in LAYOUTS)
    raise InputError(f"no tokenizer in this directory{found}", where=shown or str(directory), fix=fix)


def tokenizer_files(directory: Path) -> list[Path]:
    """Return the files of the tokenizer in a directory; InputError if an optional one is not regular, or is huge."""
    folder, layout = find_tokenizer(directory)
    beside = [folder / name for name in BESIDE if (folder / name).exists()]
    template = folder / CHAT_TEMPLATE
    for path in [*beside, template] if template.exists() else beside:
        if require_regular(path) > LARGEST_JSON:
            raise InputError(f"the file is larger than {LARGEST_JSON >> 20} MiB", where=str(path), fix="fetch it again")
    return [*(folder / name for name in layout), *beside]


def saved_config(directory: Path) -> dict[str, Any]:
    """Return the content of tokenizer_config.json, {} if there is none."""
    path = directory / CONFIG_FILE
    config = read_json_object(path) if path.exists() else {}
    if "auto_map" in config:
        message = "auto_map asks to run code shipped with the tokenizer"
        raise InputError(message, where=str(path), fix="remove the key")
    return config


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read a vocabulary file: a JSON object that maps pieces to ids."""
    return checked_vocabulary(read_json(path), path)


def read_merges(path: Path) -> list[Merge]:
    """Read a file of merges, one per line in order of rank; it may start with a #version line."""
    with translate_read_errors(path):
        text = decode_text(path.read_bytes(), str(path), default=UTF8)
    merges = []
    for number, line in enumerate(text.split("\n"), start=1):  # pieces may contain other line separators
        pair = line.split()
        if (number == 1 and line.startswith("#version")) or not pair:
            continue
        if len(pair) != 2:
            message = f"a merge must have two pieces; this one has {len(pair)}"
            raise InputError(message, where=f"{path}:{number}", fix="fetch the file again")
        merges.append((pair[0], pair[1]))
    return merges


def checked_vocabulary(found: Any, path: Path) -> dict[str, int]:
    """Return `found` as a dict if it maps pieces to the ids 0, 1, ..., each used once; else raise InputError."""
    numbers = found.values() if isinstance(found, dict) else [None]
    if not all(type(number) is int for number in numbers) or sorted(numbers) != list(range(len(found))):
        message = "not a vocabulary: it must be a JSON object that maps pieces to the ids 0, 1, 2, ..."
        raise InputError(message, where=str(path), fix="fetch the file again")
    return dict(found)


def checked_merges(found: Any, path: Path) -> list[Merge]:
    """Return the merges of a tokenizer.json, which are pairs, or strings in older versions."""
    merges = []
    for merge in found if isinstance(found, list) else [None]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(piece, str) for piece in pair):
            raise InputError("a merge is not a pair of pieces", where=str(path), fix="fetch the file again")
        merges.append((pair[0], pair[1]))
    return merges
