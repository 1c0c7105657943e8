"""`gptkit convert`: import a model's weights from another format, or export them, and prove that nothing changed."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    OpenAIGPTLMHeadModel,
    OpenAIGPTTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gptkit.console import Console
from gptkit.convert.options import ConvertOptions
from gptkit.convert.proof import logits_on_random_ids, same_logits
from gptkit.errors import GptkitError, InputError, UsageError
from gptkit.model.config_files import foreign_config
from gptkit.model.interop import State, read_safetensors, read_weights, write_gptkit, write_hf
from gptkit.model.loading import load_model, load_source
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.quiet import quiet_transformers
from gptkit.model.special_tokens import set_special_tokens
from gptkit.model_files.files import source_directory
from gptkit.model_files.shape import model_type
from gptkit.system.json_files import read_json_object
from gptkit.system.run_layout import described_in
from gptkit.tasks.carried_task import TASK_FILE, carried_task, write_task
from gptkit.text.tokenizers.files import LAYOUTS
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer, tokenizer_in
from gptkit.training.finished_runs import readable_model

WRITERS: dict[str, Callable[[Any, Path], None]] = {"gptkit": write_gptkit, "hf": write_hf}


def run(options: ConvertOptions, console: Console) -> dict[str, Any]:
    """Write the destination whole or not at all, show its tensors, and return the proof that it computes the same."""
    destination = options.destination
    _refuse_taken(destination)
    asked = options.source
    source = Path(asked) if os.path.isfile(asked) else source_directory(readable_model(asked, console))
    model = load_source(source)
    language_model = model.language_model() if isinstance(model, GPTDoubleHeadsModel) else model
    if options.to == "hf" and model is not language_model:
        console.warn(f"the head for {model.config.task} is dropped: plain transformers has none that computes the same")
        if (described_in(source) / TASK_FILE).exists():
            console.warn(f"{TASK_FILE}, the description of that task, is dropped with it")
        model = language_model
    task = carried_task(source) if model is not language_model else None
    tokenizer = _tokenizer(options.tokenizer, source, model.config.vocab_size, console)
    dtype = str(model.dtype).removeprefix("torch.")
    if tokenizer is not None and model.config.eos_token_id is None:
        with suppress(InputError):  # a tokenizer without a separator leaves them unset
            set_special_tokens(model, tokenizer)
    with _published(destination) as folder:
        WRITERS[options.to](model, folder)
        tensors = _tensors(read_safetensors(folder))
        if task is not None:
            write_task(folder, task)
        if tokenizer is not None:
            _write_tokenizer(tokenizer, folder, options.to, console)
        expected = logits_on_random_ids(_in_its_own_code(source) if _is_foreign(source) else language_model)
        del model, language_model  # one at a time is enough for memory
        found = logits_on_random_ids(_as_plain_transformers(folder) if options.to == "hf" else load_model(folder))
        difference = _difference(expected, found, options.source)
    parameters = sum(row[-1] for row in tensors)
    console.table(f"Tensors of {destination}", ("tensor", "shape", "number", "parameters"), tensors)
    console.result(f"{parameters:,} parameters in {dtype}, logits differ from the source's by {difference:.1e} at most")
    return {
        "source": options.source,
        "destination": str(destination),
        "to": options.to,
        "dtype": dtype,
        "parameters": parameters,
        "max_logit_difference": difference,
        "tokenizer": tokenizer is not None,
    }


def _refuse_taken(destination: Path) -> None:
    if destination.is_dir() and not any(destination.iterdir()):
        return
    if destination.exists() or destination.is_symlink():
        raise UsageError("the destination is there already", where=str(destination), fix="name a new directory")


def _tokenizer(asked: str | None, source: Path, vocab_size: int, console: Console) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer asked for, else the source's own, else None with a warning."""
    own = any((described_in(source) / name).is_file() for layout in LAYOUTS for name in layout)
    if asked is None and not own:
        console.warn(f"no tokenizer lies in {source}: generating needs one, give it with --tokenizer")
        return None
    tokenizer = load_tokenizer(asked) if asked else tokenizer_in(source)
    if len(tokenizer) > vocab_size:
        message = f"the tokenizer has {len(tokenizer):,} entries, the model only {vocab_size:,}"
        raise InputError(message, where="--tokenizer", fix="name the one that the model was trained with")
    return tokenizer


def _write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, to: str, console: Console) -> None:
    if to == "hf" and isinstance(tokenizer, GPT1Tokenizer):
        console.warn(
            "plain transformers splits GPT-1's text in its own way: its ids differ, and it has no newline token"
        )
        added = sorted(tokenizer.added_tokens_encoder.items(), key=lambda item: item[1])
        tokenizer = OpenAIGPTTokenizer(tokenizer.vocabulary, tokenizer.merges)  # type: ignore[arg-type]
        tokenizer.add_tokens([token for token, _ in added], special_tokens=True)
    tokenizer.save_pretrained(folder)


def _tensors(state: State) -> list[tuple[str, str, int, int]]:
    """Return (name, shape, number, parameters) of each kind of tensor in a file, the layers' counted together."""
    kinds = [
        (re.sub(r"\.\d+\.", ".N.", name), " x ".join(map(str, tensor.shape)), tensor.numel())
        for name, tensor in state.items()
    ]
    return [(name, shape, number, number * size) for (name, shape, size), number in Counter(kinds).items()]


@contextmanager
def _published(destination: Path) -> Iterator[Path]:
    """Give a new directory to fill, which becomes `destination` in one move if all goes well, and vanishes if not."""
    destination = destination.absolute()
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    folder.mkdir()
    try:
        yield folder
        if destination.is_dir():
            destination.rmdir()  # empty, or it would have been refused; Windows renames onto nothing
        os.replace(folder, destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_foreign(folder: Path) -> bool:
    """Say whether this is a directory of transformers' own."""
    config = folder / "config.json"
    return config.is_file() and model_type(read_json_object(config)) != "gptkit"


def _in_its_own_code(folder: Path) -> PreTrainedModel:
    """Return a foreign directory's model as transformers computes it; it sees only the tensors."""
    config = foreign_config(folder / "config.json")
    theirs = GPT2LMHeadModel if isinstance(config, GPT2Config) else OpenAIGPTLMHeadModel
    with quiet_transformers():
        model: PreTrainedModel = theirs.from_pretrained(None, config=config, state_dict=read_weights(folder))
    return model


def _as_plain_transformers(folder: Path) -> PreTrainedModel:
    """Return the model in a directory that was just written, read as anybody would."""
    with quiet_transformers():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    return model


def _difference(expected: Tensor, found: Tensor, source: str) -> float:
    """Return the largest difference of logits; raise when it is more than rounding."""
    if not bool(expected.isfinite().all()):
        raise InputError("the model's logits are not finite", where=source, fix="its weights are damaged; take another")
    difference = float((expected - found).abs().max())
    if not same_logits(expected, found):
        raise GptkitError(f"the converted model's logits differ by {difference:.1e}", where=source)
    return difference
