"""The model formats that convert reads and writes: a row and a module for each, imported on demand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from gptkit.errors import InputError
from gptkit.system.run_layout import described_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gptkit.console import Console
    from gptkit.convert.proof import Peer
    from gptkit.model.configuration_gpt import GPTConfig
    from gptkit.model.loading import Head, State
    from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel


@dataclass(frozen=True)
class Importer:
    """How a format is read."""

    matches: Callable[[Path], bool]
    read: Callable[[Path], tuple[GPTConfig, State]]
    # What is assumed or dropped, and so must be said.
    notes: Callable[[Path], Sequence[str]] = lambda path: ()
    # The tokenizer, if the source may have one in a form of its own; None: it is in the usual files, or there is none.
    tokenizer: Callable[[Path], PreTrainedTokenizerBase | None] | None = None
    # The program that the source belongs to, which has read it as a model of this class, and its tokenizer or none;
    # ImportError if it is not installed.
    open_source: Callable[[Path, Head, bool], Peer] | None = None


@dataclass(frozen=True)
class Exporter:
    """How a format is written; `refuse` and `write` take a model, its tokenizer or None, and a dtype."""

    # Into an empty directory; warns of what other programs ignore.
    write: Callable[[Any, PreTrainedTokenizerBase | None, Path, str, Console], None]
    # The other program, which has read the directory; ImportError if it is not installed.
    open_peer: Callable[[Path], Peer]
    # InputError for what the format cannot hold, before anything is written.
    refuse: Callable[[Any, PreTrainedTokenizerBase | None, str], None] = lambda model, tokenizer, dtype: None
    # The relative error of the other program's f32, where it is coarser than f32.
    rounding: float = 0.0
    # Why a classifier's head is dropped; None: it is kept.
    head_obstacle: Callable[[GPTDoubleHeadsModel], str | None] = lambda model: "the format holds language models only"
    # The tensors as they were written, if they can be listed.
    tensors: Callable[[Path], State] = lambda folder: {}
    # Whether a user's own task travels with a classifier.
    holds_task: bool = False


@dataclass(frozen=True)
class Format:
    """A format: its module, how users are told of it, and what must be known before the module is imported.

    `reads` describes a source in errors ("" = unmentioned, None = it cannot be read), `writes` an export in the help
    (None = it cannot be written). `dtypes` are the names that it can hold, `packages` the modules that writing needs,
    all of the extra `export`; a destination that ends in `suffix` is the file model.SUFFIX instead of a directory.
    `next` are the commands to try after an export of a language model and of a classifier, formatted as in the table of
    commands; {inside} is the name of the file if the destination is a directory.
    """

    module: str
    reads: str | None = None
    writes: str | None = None
    dtypes: tuple[str, ...] = ()
    suffix: str | None = None
    packages: tuple[str, ...] = ()
    next: tuple[str, str] = ("", "")
    signs: tuple[str, ...] = ()  # patterns of a source's file, or of files in its directory

    def importer(self) -> Importer:
        """Import the module of a format that can be read; return its IMPORTER."""
        return cast("Importer", importlib.import_module(self.module).IMPORTER)

    def exporter(self) -> Exporter:
        """Import the module of a format that can be written; return its EXPORTER."""
        return cast("Exporter", importlib.import_module(self.module).EXPORTER)


CLASSIFY = "import sys, transformers as t; print(t.pipeline('text-classification', sys.argv[1])('a text'))"
COMPLETE = (
    "import sys, ctranslate2 as c; "
    "print(c.Generator(sys.argv[1]).generate_batch([['<|endoftext|>']], max_length=20)[0].sequences[0])"
)
FORMATS = {  # in the order in which a source is matched
    "gptkit": Format(
        *("gptkit.convert.own", "", "", ("f32", "f16", "bf16")),
        signs=("config.json",),
        next=("gptkit generate --model {destination}", "gptkit predict {texts} --model {destination}"),
    ),
    "hf": Format(
        *("gptkit.convert.hf", "config.json with safetensors or pytorch_model.bin"),
        *("a directory that plain transformers loads", ("f32", "f16", "bf16")),
        next=("gptkit generate --model {destination}", f'python -c "{CLASSIFY}" {{destination}}'),
    ),
    "gguf": Format(
        *("gptkit.convert.gguf", "GGUF (.gguf)", "a .gguf for llama.cpp, with a Modelfile for Ollama"),
        *(("f32", "f16", "bf16", "q8_0", "q4_0"), ".gguf", ("gguf",)),
        ("llama-completion -m {destination}{inside} -p 'Once upon a time' -n 40", ""),
        signs=("*.gguf",),
    ),
    "onnx": Format(
        *("gptkit.convert.onnx", None, "a graph for onnxruntime", ("f32", "f16", "int8")),
        packages=("onnx", "onnx_ir", "onnxscript"),
        next=("cat {destination}/README.md", "cat {destination}/README.md"),  # which has the code to run
    ),
    "llm.c": Format(
        *("gptkit.convert.llmc", "llm.c's model.bin", "its model.bin", ("f32", "bf16"), ".bin"),
        signs=("*.bin",),
        next=("gptkit convert {destination} {free:imported}", ""),  # the way back, also for what llm.c has trained
    ),
    "ctranslate2": Format(
        *("gptkit.convert.ctranslate2", None, "CTranslate2's directory", ("f32", "f16", "bf16", "int8")),
        packages=("ctranslate2",),
        next=(f'python -c "{COMPLETE}" {{destination}}', ""),
    ),
    "openai": Format("gptkit.convert.openai", "OpenAI's params_*.npy", signs=("params_shapes.json",)),
    "openai-tf": Format("gptkit.convert.openai_tf", "OpenAI's model.ckpt.* with hparams.json", signs=("hparams.json",)),
    "nanogpt": Format("gptkit.convert.nanogpt", "nanoGPT's ckpt.pt or state dict", signs=("*.pt", "*.pth", "*.bin")),
}
EXPORTS = {name: row.writes for name, row in FORMATS.items() if row.writes is not None}
_EXPORTS = ", or ".join(f"{name} = {what}" if what else name for name, what in EXPORTS.items())
EXPORTS_HELP = f"Format to write: {_EXPORTS}."
READS = ", ".join(row.reads for row in FORMATS.values() if row.reads)
DTYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "int8")
if TYPE_CHECKING:
    ExportName = str
    DtypeName = str
else:
    ExportName = Literal[tuple(EXPORTS)]
    DtypeName = Literal[DTYPES]


def importer_of(path: Path) -> Importer:
    """Return the importer for a source's format; InputError if none matches."""
    for row in FORMATS.values():
        if row.reads is not None and (importer := row.importer()).matches(path):
            return importer
    raise _no_model(path)


def require_sign(path: Path) -> None:
    """Raise InputError for a source that is of no format by its names alone, without importing a format."""
    names = [path.name] if path.is_file() else [file.name for file in described_in(path).glob("*")]
    signs = [sign for row in FORMATS.values() for sign in row.signs]
    if not any(fnmatch(name, sign) for name in names for sign in signs):
        raise _no_model(path)


def _no_model(path: Path) -> InputError:
    fix = f"convert reads {READS}"
    return InputError("no model here" if path.exists() else "no such file or directory", where=str(path), fix=fix)
