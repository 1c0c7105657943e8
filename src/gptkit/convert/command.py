"""`gptkit convert`: convert a model's weights between formats, and check that the logits stay the same."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.convert.formats import FORMATS, format_of
from gptkit.convert.options import ConvertOptions
from gptkit.errors import GptkitError, InputError
from gptkit.model.loading import State, build_model, set_special_tokens
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTPreTrainedModel
from gptkit.model_files import source_directory
from gptkit.system.files import new_directory, require_free
from gptkit.system.run_layout import described_in
from gptkit.tasks.own import TASK_FILE, carried_task, write_task
from gptkit.text.tokenizers.files import LAYOUTS
from gptkit.text.tokenizers.loading import load_tokenizer, tokenizer_in
from gptkit.training.finished_runs import readable_model

SEQUENCES, LENGTH = 4, 64  # of random ids, on which source and destination are compared


def run(options: ConvertOptions, console: Console) -> dict[str, Any]:
    """Write the destination completely or not at all, print its tensors, and return how far its logits differ."""
    destination, target = options.destination, FORMATS[options.to].load()
    require_free(destination, str(destination))
    asked = options.source
    source = Path(asked) if os.path.isfile(asked) else source_directory(readable_model(asked, console))
    origin = format_of(source)
    model = load_source(source)
    language_model = model.language_model() if isinstance(model, GPTDoubleHeadsModel) else model
    if model is not language_model and target.NO_HEAD:
        console.warn(f"the head for {model.config.task} is dropped: {target.NO_HEAD}")
        if (described_in(source) / TASK_FILE).exists():
            console.warn(f"{TASK_FILE}, which describes that task, is dropped too")
        model = language_model
    task = carried_task(source) if model is not language_model else None
    tokenizer = _tokenizer(options.tokenizer, source, model.config.vocab_size, console)
    dtype = str(model.dtype).removeprefix("torch.")
    if tokenizer is not None and model.config.eos_token_id is None:
        with suppress(InputError):  # with a tokenizer without a separator they stay unset
            set_special_tokens(model, tokenizer)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with new_directory(destination.absolute(), replace=False) as folder:
        target.write(model, folder)
        tensors = _tensors(target.tensors(folder))
        if task is not None:
            write_task(folder, task)
        if tokenizer is not None:
            target.write_tokenizer(tokenizer, folder, console)
        reference = origin.in_its_own_code(source) if hasattr(origin, "in_its_own_code") else language_model
        expected = _logits_on_random_ids(reference)
        del model, language_model, reference  # hold only one model in memory
        difference = _difference(expected, _logits_on_random_ids(target.read_back(folder)), asked)
    parameters = sum(row[-1] for row in tensors)
    console.table(f"Tensors of {destination}", ("tensor", "shape", "number", "parameters"), tensors)
    console.result(f"{parameters:,} parameters in {dtype}; logits differ from the source's by at most {difference:.1e}")
    return {
        "source": asked,
        "destination": str(destination),
        "to": options.to,
        "dtype": dtype,
        "parameters": parameters,
        "max_logit_difference": difference,
        "tokenizer": tokenizer is not None,
    }


def load_source(source: Path) -> GPTPreTrainedModel:
    """Return a model in any format that convert reads, in its own dtype, so that its exact bits can be written."""
    config, state = format_of(source).read(source)
    head = GPTDoubleHeadsModel if "score.weight" in state else GPTForCausalLM
    return build_model(config, state, state["transformer.wte.weight"].dtype, head)


def _tokenizer(asked: str | None, source: Path, vocab_size: int, console: Console) -> PreTrainedTokenizerBase | None:
    """Return the requested tokenizer, else the source's own, else None with a warning."""
    own = any((described_in(source) / name).is_file() for layout in LAYOUTS for name in layout)
    if asked is None and not own:
        console.warn(f"no tokenizer found in {source}: generate needs one; pass it with --tokenizer")
        return None
    tokenizer = load_tokenizer(asked) if asked else tokenizer_in(source)
    if len(tokenizer) > vocab_size:
        message = f"the tokenizer has {len(tokenizer):,} entries, but the model only {vocab_size:,}"
        raise InputError(message, where="--tokenizer", fix="pass the one that the model was trained with")
    return tokenizer


def _tensors(state: State) -> list[tuple[str, str, int, int]]:
    """Return (name, shape, number, parameters) of each kind of tensor, counting all layers together."""
    kinds = [
        (re.sub(r"\.\d+\.", ".N.", name), " x ".join(map(str, tensor.shape)), tensor.numel())
        for name, tensor in state.items()
    ]
    return [(name, shape, number, number * size) for (name, shape, size), number in Counter(kinds).items()]


@torch.inference_mode()
def _logits_on_random_ids(model: PreTrainedModel) -> Tensor:
    """Return logits (sequences, length, vocab) for the same random ids each time; converts the model to fp32."""
    length = min(LENGTH, model.config.n_positions)
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(model.config.vocab_size, (SEQUENCES, length), generator=generator)
    logits: Tensor = model.float().eval()(input_ids=input_ids).logits
    return logits


def _difference(expected: Tensor, found: Tensor, source: str) -> float:
    """Return the largest difference between logits; raise if it exceeds what fp32 rounding explains."""
    if not bool(expected.isfinite().all()):
        fix = "its weights are damaged; use another model"
        raise InputError("the model's logits are not finite", where=source, fix=fix)
    difference = float((expected - found).abs().max())
    if not difference <= 1e-4 * max(1.0, float(expected.abs().max())):  # also true for NaN
        raise GptkitError(f"the converted model's logits differ by {difference:.1e}", where=source)
    return difference
