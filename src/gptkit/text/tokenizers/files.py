"""The files that make a tokenizer: which there are, where they lie, and what stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.system.json_files import LARGEST_FILE, read_json
from gptkit.system.reading import require_regular
from gptkit.system.run_layout import MODEL, START, described_in

LAYOUTS = (  # files that make a tokenizer; of transformers' two the first wins
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("encoder.json", "vocab.bpe"),
    ("encoder_bpe_40000.json", "vocab_40000.bpe"),
)
CONFIG_FILE = "tokenizer_config.json"
BESIDE = (CONFIG_FILE, "special_tokens_map.json", "added_tokens.json")  # what else bears on ids, where it is there


def find_files(directory: Path, shown: str) -> tuple[Path, tuple[str, ...]]:
    """Return the folder and layout of the tokenizer's files; a run has them in model/, and from the start in start/."""
    for folder in dict.fromkeys((directory, directory / MODEL, directory / START, described_in(directory))):
        complete = [layout for layout in LAYOUTS if all((folder / name).is_file() for name in layout)]
        if set(LAYOUTS[:2]) <= set(complete):
            complete.remove(LAYOUTS[1])
        if len(complete) > 1:
            found = " and ".join("+".join(layout) for layout in complete)
            fix = "leave one of them in the directory"
            raise InputError(f"more than one tokenizer: {found}", where=str(folder), fix=fix)
        if complete:
            return folder, complete[0]
    half = [name for layout in LAYOUTS for name in layout if (directory / name).is_file()]
    found = f", only {', '.join(half)}" if half else ""
    fix = "it needs " + ", or ".join("+".join(layout) for layout in LAYOUTS)
    raise InputError(f"no tokenizer in this directory{found}", where=shown, fix=fix)


def tokenizer_files(directory: Path) -> list[Path]:
    """Return the files that make the tokenizer in a directory; InputError for one that is not regular, or vast."""
    folder, layout = find_files(directory, str(directory))
    beside = [folder / name for name in BESIDE if (folder / name).exists()]
    for path in beside:
        if require_regular(path) > LARGEST_FILE:
            raise InputError(f"over {LARGEST_FILE >> 20} MiB", where=str(path), fix="fetch it again")
    return [*(folder / name for name in layout), *beside]


def saved_config(directory: Path) -> dict[str, Any]:
    """Return what tokenizer_config.json says, nothing where there is none."""
    path = directory / CONFIG_FILE
    config = read_json(path) if path.exists() else {}
    if not isinstance(config, dict):
        raise InputError("not a JSON object", where=str(path), fix="write {...}")
    if "auto_map" in config:
        message = "auto_map asks to run code that lies with the tokenizer"
        raise InputError(message, where=str(path), fix="remove the key")
    return config
