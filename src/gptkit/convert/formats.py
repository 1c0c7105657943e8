"""The model formats that convert reads and writes: a row and a module for each, imported on demand."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gptkit.errors import InputError


@dataclass(frozen=True)
class Format:
    """A format: its module, how users are told of it, and what must be known before the module is imported.

    `reads` describes a source in errors ("" = unmentioned, None = it cannot be read), `writes` an export in the help
    (None = it cannot be written). `dtypes` are the names that it can hold, `packages` the modules that writing needs,
    all of the extra `export`; a destination that ends in `suffix` is the file model.SUFFIX instead of a directory.

    The module of a format that can be read has
      matches(path) -> bool                       without importing anything heavy
      read(path) -> (GPTConfig, State)
      notes(path) -> list[str]                    if it must be said what is assumed or dropped
      tokenizer(path) -> tokenizer | None         if the source brings one in a form of its own
      in_its_own_code(path) -> Peer               if its library computes the source; ImportError: not installed
      classifier_in_its_own_code(path) -> Peer    the same for a source whose head is kept
    The module of a format that can be written has
      refuse(model, tokenizer | None, dtype)      InputError for what it cannot hold, before anything is written
      write(model, tokenizer | None, folder, dtype, console)    into an empty directory; warns of what others ignore
      open_peer(folder) -> Peer                   the other program, which has read it; ImportError: not installed
      ROUNDING                                    relative error of that program's f32, where it is coarser than f32
      head_obstacle(model) -> str | None          why this classifier's head is dropped, None: kept; absent: never kept
      tensors(folder) -> State                    if they can be listed as written
      write_task(folder, task)                    if a user's own task travels with a classifier
    """

    module: str
    reads: str | None = None
    writes: str | None = None
    dtypes: tuple[str, ...] = ()
    suffix: str | None = None
    packages: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import and return the module."""
        return importlib.import_module(self.module)


FORMATS = {  # in the order in which a source is matched
    "gptkit": Format("gptkit.convert.own", "", "", ("f32", "f16", "bf16")),
    "hf": Format(
        "gptkit.convert.hf",
        "config.json with safetensors or pytorch_model.bin",
        "a directory that plain transformers loads",
        ("f32", "f16", "bf16"),
    ),
    "gguf": Format(
        "gptkit.convert.gguf",
        "GGUF (.gguf)",
        "a .gguf for llama.cpp, with a Modelfile for Ollama",
        ("f32", "f16", "bf16", "q8_0", "q4_0"),
        ".gguf",
        ("gguf",),
    ),
    "onnx": Format(
        "gptkit.convert.onnx",
        None,
        "a graph for onnxruntime",
        ("f32", "f16", "int8"),
        packages=("onnx", "onnx_ir", "onnxscript"),
    ),
    "llm.c": Format("gptkit.convert.llmc", "llm.c's model.bin", "its model.bin", ("f32", "bf16"), suffix=".bin"),
    "ctranslate2": Format(
        "gptkit.convert.ctranslate2",
        None,
        "CTranslate2's directory",
        ("f32", "f16", "bf16", "int8"),
        packages=("ctranslate2",),
    ),
    "openai": Format("gptkit.convert.openai", "OpenAI's params_*.npy"),
    "openai-tf": Format("gptkit.convert.openai_tf", "OpenAI's model.ckpt.* with hparams.json"),
    "nanogpt": Format("gptkit.convert.nanogpt", "nanoGPT's ckpt.pt or state dict"),
}
EXPORTS = {name: row.writes for name, row in FORMATS.items() if row.writes is not None}
_EXPORTS = ", or ".join(f"{name} = {what}" if what else name for name, what in EXPORTS.items())
EXPORTS_HELP = f"Format to write: {_EXPORTS}."
DTYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "int8")
if TYPE_CHECKING:
    ExportName = str
    DtypeName = str
else:
    ExportName = Literal[tuple(EXPORTS)]
    DtypeName = Literal[DTYPES]


def format_of(path: Path) -> Any:
    """Return the module for a source's format; InputError if none matches."""
    for row in FORMATS.values():
        if row.reads is not None and (module := row.load()).matches(path):
            return module
    *others, last = [row.reads for row in FORMATS.values() if row.reads]
    fix = f"convert reads {', '.join(others)}, and {last}"
    raise InputError("no model here" if path.exists() else "no such file or directory", where=str(path), fix=fix)
