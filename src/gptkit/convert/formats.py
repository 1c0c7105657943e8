"""The model formats that convert reads and writes: a row and a module for each, imported on demand."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gptkit.errors import InputError


@dataclass(frozen=True)
class Format:
    """A format's module, and the phrases that describe reading it (for errors) and writing it (for help), or None.

    The module has `matches(path)` and `read(path) -> (GPTConfig, State)`. If it can write, it also has
    `write(model, folder)`, `tensors(folder)`, which returns the tensors that were written, `read_back(folder)`,
    `write_tokenizer(tokenizer, folder, console)` and NO_HEAD, the reason why a fine-tuned model's head is dropped
    (None = it is kept). `in_its_own_code(path)`, if present, returns the model as the library that the format comes
    from computes it.
    """

    module: str
    reads: str | None
    writes: str | None = None

    def load(self) -> Any:
        """Import and return the module."""
        return importlib.import_module(self.module)


FORMATS = {  # in the order in which a source is matched
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
_EXPORTS = ", or ".join(f"{name} = {what}" if what else name for name, what in EXPORTS.items())
EXPORTS_HELP = f"Format to write: {_EXPORTS}."
if TYPE_CHECKING:
    ExportName = str
else:
    ExportName = Literal[tuple(EXPORTS)]


def format_of(path: Path) -> Any:
    """Return the module for a source's format; InputError if none matches."""
    for row in FORMATS.values():
        module = row.load()
        if module.matches(path):
            return module
    *others, last = [row.reads for row in FORMATS.values() if row.reads]
    fix = f"convert reads {', '.join(others)}, and {last}"
    raise InputError("no model here" if path.exists() else "no such file or directory", where=str(path), fix=fix)
