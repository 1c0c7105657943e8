"""`gptkit convert`: convert a model's weights between formats, and prove that another program computes the same."""

from __future__ import annotations

import gc
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.convert.adapter import in_peft, merge
from gptkit.convert.dtypes import chosen_dtype, refuse_overflow
from gptkit.convert.formats import FORMATS, format_of
from gptkit.convert.options import ConvertOptions
from gptkit.convert.proof import (
    Answers,
    Peer,
    Proof,
    Questions,
    classifier_questions,
    compare,
    language_questions,
    observe,
    proof_text,
    require,
)
from gptkit.convert.torch_peer import OURS, own_peer
from gptkit.errors import InputError
from gptkit.model.loading import State, build_model, set_special_tokens
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTPreTrainedModel
from gptkit.model_files import source_directory
from gptkit.system.files import new_directory, rename, require_free, sync_all, sync_directory
from gptkit.system.run_layout import described_in
from gptkit.tasks.own import TASK_FILE, carried_task
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.files import has_tokenizer
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer, tokenizer_in
from gptkit.training.finished_runs import readable_model


def run(options: ConvertOptions, console: Console) -> dict[str, Any]:
    """Write the destination completely or not at all, and return how far another program's figures differ."""
    destination, row = options.destination, FORMATS[options.to]
    target = row.load()
    require_free(destination, str(destination))
    asked = options.source
    source = Path(asked) if os.path.isfile(asked) else source_directory(readable_model(asked, console))
    origin = format_of(source)
    for note in origin.notes(source) if hasattr(origin, "notes") else ():
        console.warn(note)
    models = [_with_head_if_kept(load_source(source, options.adapter), target, source, console)]
    tokenizer = _tokenizer(options.tokenizer, origin, source, models[0].config.vocab_size, console)
    if tokenizer is not None and models[0].config.eos_token_id is None:
        with suppress(InputError):  # with a tokenizer without a separator they stay unset
            set_special_tokens(models[0], tokenizer)
    dtype = chosen_dtype(options.dtype, models[0].dtype, row.dtypes)
    target.refuse(models[0], tokenizer, dtype)
    refuse_overflow(models[0], dtype)
    questions, parameters = _questions(models[0], tokenizer), models[0].num_parameters()
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _new_destination(destination.absolute(), row.suffix) as folder:
        target.write(models[0], tokenizer, folder, dtype, console)
        if hasattr(target, "write_task") and (task := carried_task(source)) is not None:
            target.write_task(folder, task)
        tensors = _tensors(target.tensors(folder)) if hasattr(target, "tensors") else []
        reference = _reference(origin, source, options.adapter, models, tokenizer)
        expected, name = observe(reference, questions, with_gaps=True), reference.name
        del reference
        gc.collect()  # hold only one model in memory
        proof = _proof(target, folder, questions, expected, name, console)
        same_ids = not isinstance(tokenizer, GPT1Tokenizer)  # which nobody else splits as OpenAI did
        rounding = getattr(target, "ROUNDING", 0.0)
        require(proof, expected, dtype, where=asked, same_ids=same_ids, rounding=rounding)
    if tensors:
        console.table(f"Tensors of {destination}", ("tensor", "shape", "number", "parameters"), tensors)
    console.result(f"{parameters:,} parameters in {dtype}; {_told(proof)}")
    return {
        "source": asked,
        "destination": str(destination),
        "to": options.to,
        "dtype": dtype,
        "parameters": parameters,
        **asdict(proof),
        "tokenizer": tokenizer is not None,
    }


def load_source(source: Path, adapter: Path | None = None) -> GPTPreTrainedModel:
    """Return a model in any format that convert reads, in its own dtype, so that its exact bits can be written.

    Weights of several dtypes become f32. With `adapter`, it is merged into the weights.
    """
    config, state = format_of(source).read(source)
    if adapter is not None:
        merge(state, adapter)
    head = GPTDoubleHeadsModel if "score.weight" in state else GPTForCausalLM
    dtypes = {tensor.dtype for tensor in state.values()}
    return build_model(config, state, dtypes.pop() if len(dtypes) == 1 else torch.float32, head)


def _with_head_if_kept(model: GPTPreTrainedModel, target: Any, source: Path, console: Console) -> GPTPreTrainedModel:
    """Return the model, or the language model inside, saying what is dropped, if the format cannot hold its head."""
    if not isinstance(model, GPTDoubleHeadsModel):
        return model
    obstacle = getattr(target, "head_obstacle", lambda _: "the format holds language models only")(model)
    if obstacle is None:
        return model
    console.warn(f"the head for {model.config.task} is dropped: {obstacle}")
    if (described_in(source) / TASK_FILE).exists():
        console.warn(f"{TASK_FILE}, which describes that task, is dropped too")
    return model.language_model()


def _tokenizer(
    asked: str | None, origin: Any, source: Path, vocab_size: int, console: Console
) -> PreTrainedTokenizerBase | None:
    """Return the requested tokenizer, else the source's own, else None with a warning."""
    tokenizer: PreTrainedTokenizerBase | None = None
    if asked is not None:
        tokenizer = load_tokenizer(asked)
    elif hasattr(origin, "tokenizer"):
        tokenizer = origin.tokenizer(source)
    elif has_tokenizer(described_in(source)):
        tokenizer = tokenizer_in(source)
    if tokenizer is None:
        console.warn(f"no tokenizer found in {source}: generate needs one; pass it with --tokenizer")
    elif len(tokenizer) > vocab_size:
        message = f"the tokenizer has {len(tokenizer):,} entries, but the model only {vocab_size:,}"
        raise InputError(message, where="--tokenizer", fix="pass the one that the model was trained with")
    return tokenizer


@contextmanager
def _new_destination(path: Path, suffix: str | None) -> Iterator[Path]:
    """Yield a new directory that becomes `path` at the end, or whose one file of that suffix does; else remove it."""
    if suffix is None or path.suffix.lower() != suffix or path.is_dir():
        with new_directory(path, replace=False) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        yield Path(temporary)
        sync_all(Path(temporary))
        require_free(path, str(path))
        rename(Path(temporary, f"model{suffix}"), path)
        sync_directory(path.parent)


def _questions(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Questions:
    config, text, ids = model.config, None, None
    if tokenizer is not None:
        text = proof_text()
        ids = encode_pieces(tokenizer, [text])[0].tolist()
    sizes = {"n_positions": config.n_positions, "vocab_size": config.vocab_size}
    if isinstance(model, GPTDoubleHeadsModel):
        markers = int(config.start_token_id or 0), int(config.extract_token_id or 0)
        return classifier_questions(ids, text, markers=markers, **sizes)
    return language_questions(ids, text, parameters=model.num_parameters(), **sizes)


def _reference(
    origin: Any,
    source: Path,
    adapter: Path | None,
    models: list[GPTPreTrainedModel],
    tokenizer: PreTrainedTokenizerBase | None,
) -> Peer:
    """Return the program that says what is right: the source's own code, or the adapter's, or else our model.

    Empties `models`, so that no other reference keeps the weights in memory.
    """
    model = models.pop()
    kind = type(model)
    own_code = "in_its_own_code" if kind is GPTForCausalLM else "classifier_in_its_own_code"
    if adapter is None and not hasattr(origin, own_code):
        return own_peer(model, tokenizer)
    del model
    with suppress(ImportError):
        if adapter is not None:
            return in_peft(_loaded_as(kind, source), tokenizer, adapter)
        peer: Peer = getattr(origin, own_code)(source)
        return peer
    return own_peer(_loaded_as(kind, source, adapter), tokenizer)


def _loaded_as(kind: type[GPTPreTrainedModel], source: Path, adapter: Path | None = None) -> GPTPreTrainedModel:
    """Return the source's model once more, of a classifier whose head was dropped the language model inside."""
    model = load_source(source, adapter)
    return model.language_model() if isinstance(model, GPTDoubleHeadsModel) and kind is GPTForCausalLM else model


def _proof(
    target: Any, folder: Path, questions: Questions, expected: Answers, reference: str, console: Console
) -> Proof:
    """Return how far the format's other program agrees; one without figures, and a warning, if it is not installed."""
    try:
        peer: Peer = target.open_peer(folder)
    except ImportError as error:
        console.warn(f"{error.name or error} is not installed, so nothing is proven: pip install 'gptkit[export]'")
        return Proof()
    other = expected.program if peer.name == OURS != reference else None  # an import: compared with where it came from
    return compare(expected, observe(peer, questions), other, getattr(target, "ROUNDING", 0.0))


def _tensors(state: State) -> list[tuple[str, str, int, int]]:
    """Return (name, shape, number, parameters) of each kind of tensor, counting all layers together."""
    kinds = [
        (re.sub(r"(^|\.)h\.\d+\.", r"\1h.N.", name), " x ".join(map(str, tensor.shape)), tensor.numel())
        for name, tensor in state.items()
    ]
    return [(name, shape, number, number * size) for (name, shape, size), number in Counter(kinds).items()]


def _told(proof: Proof) -> str:
    """Return a proof in words."""
    if proof.peer is None:
        return "not compared with any other program"
    told = [f"compared with {proof.peer}"]
    if proof.max_logit_difference is not None:
        told.append(f"logits differ by at most {proof.max_logit_difference:.1e}")
    if proof.nll_difference is not None:
        told.append(f"NLL by {proof.nll_difference:+.1e} nats per token")
    if proof.greedy_equal is not None:
        told.append("greedy text is equal" if proof.greedy_equal else "greedy text is not equal")
    if proof.tokenizer_ids_equal is not None:
        told.append("token ids are equal" if proof.tokenizer_ids_equal else "token ids are not equal")
    return f"{told[0]}: {', '.join(told[1:])}"
