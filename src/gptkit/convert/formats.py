"""The formats of models that convert knows: a row each, and a module each, which is imported when it is asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gptkit.errors import InputError


@dataclass(frozen=True)
class Format:
    """A row: the module that knows a format, and what is said of reading and of writing it; None where it is not.

    The module has `matches(path)` and `read(path)`, which returns (GPTConfig, State); where it is written also
    `write(model, folder)`, `tensors(folder)` that were written, `read_back(folder)`, `write_tokenizer(tokenizer,
    folder, console)` and NO_HEAD, why a fine-tuned model's head is dropped, or None; and `in_its_own_code(path)`, where
    another library computes the model.
    """

    module: str
    reads: str | None
    writes: str | None = None

    def load(self) -> Any:
        """Return the module."""
        return importlib.import_module(self.module)


FORMATS = {  # in the order in which a source is tried
    "gptkit": Format("gptkit.convert.own", None, ""),
    "hf": Format(
        "gptkit.convert.hf",
        "config.json with safetensors or pytorch_model.bin",
        "a directory that plain transformers loads",
    ),
    "openai": Format("gptkit.convert.openai", "OpenAI's params_*.npy"),
    "nanogpt": Format("gptkit.convert.nanogpt", "nanoGPT's ckpt.pt"),
}
EXPORTS = {name: row.writes for name, row in FORMATS.items() if row.writes is not None}
EXPORTS_HELP = ", or ".join(f"{name}: {what}" if what else name for name, what in EXPORTS.items()) + "."
if TYPE_CHECKING:
    ExportName = str
else:
    ExportName = Literal[tuple(EXPORTS)]


def format_of(path: Path) -> Any:
    """Return the module of a source's format; InputError where no format is recognised."""
    for row in FORMATS.values():
        module = row.load()
        if module.matches(path):
            return module
    *others, last = [row.reads for row in FORMATS.values() if row.reads]
    fix = f"convert reads {', '.join(others)}, and {last}"
    raise InputError("no model here" if path.exists() else "no such file or directory", where=str(path), fix=fix)
