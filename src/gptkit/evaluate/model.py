"""A model under evaluation: its log-probabilities, its fine-tuned head's answers and the texts it generates."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator

from gptkit.console import Console
from gptkit.decoding.engines import choose_engine
from gptkit.decoding.text_model import Draft, Prompt, TextModel
from gptkit.decoding.text_options import TextModelOptions, check_settings, prompt_room
from gptkit.evaluate.options import EvalOptions
from gptkit.model.configuration_gpt import mask_token_of, read_config
from gptkit.model.loading import load_model, weights_sha256
from gptkit.model.model_types import ANY
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.scoring.encoder import Encoder
from gptkit.scoring.masked_scorer import MaskedScorer
from gptkit.scoring.protocols import Answer, Generated, GeneratedProtocol, Group, Items
from gptkit.scoring.scorer import Scorer
from gptkit.system.processor import refuse_emulated_bf16
from gptkit.system.run_layout import described_in
from gptkit.tasks.encoding import encode_examples
from gptkit.tasks.head_outputs import logits_of, marker_ids
from gptkit.tasks.heads import items_of_logits
from gptkit.tasks.task import Task
from gptkit.text.examples import Example
from gptkit.text.tokenizers.any_tokenizer import unknown_note
from gptkit.text.tokenizers.encoding import count_unknown, encode_pieces
from gptkit.text.tokenizers.loading import fingerprint, tokenizer_in
from gptkit.training.memory import keep_freed_memory
from gptkit.training.processes import make_accelerator, on_every_process
from gptkit.training.step import autocast


class GeneratedTexts(NamedTuple):
    """Texts in the examples' order, the number of truncated prompts, and notes on what the model did not see."""

    texts: list[Generated]
    truncated: int
    notes: list[str]


class EvaluatedModel:
    """A model directory, opened as the options say. Scorer, head and hashes are made once, when first needed."""

    def __init__(self, directory: Path, options: EvalOptions, accelerator: Accelerator, console: Console) -> None:
        self.directory = directory
        self.options = options
        self.accelerator = accelerator
        self.console = console
        self.config = read_config(described_in(directory) / "config.json")
        self.tokenizer = tokenizer_in(directory)
        is_masked = mask_token_of(self.config) is not None  # which reads a request's last token, too
        self.encoder = Encoder(self.tokenizer, self.config.n_positions - is_masked)
        self._warned: set[str] = set()

    def warn_once(self, line: str) -> None:
        """Warn, unless already warned: a problem of the data recurs with the weights of every step."""
        if line not in self._warned:
            self._warned.add(line)
            self.console.warn(line)

    def with_weights(self, directory: Path) -> EvaluatedModel:
        """Return this model with the weights of another step of its run; tokenized texts are shared."""
        other = copy.copy(self)
        other.directory = directory
        for name in ("model_sha256", "_scorer", "_head"):  # caches that depend on the weights
            other.__dict__.pop(name, None)
        return other

    @functools.cached_property
    def model_sha256(self) -> str:
        return weights_sha256(self.directory)

    @functools.cached_property
    def tokenizer_sha256(self) -> str:
        return fingerprint(self.tokenizer)

    def score(self, groups: Sequence[Group], banned: Sequence[int] = ()) -> list[tuple[Answer, ...]]:
        """Answer groups of requests, with a progress bar."""
        total = sum(map(len, groups))
        with self.console.tally(total, noun="requests") as tally:
            return self._scorer.score(groups, banned, tally.reach)

    @functools.cached_property
    def _scorer(self) -> Scorer:
        make: Any = Scorer if mask_token_of(self.config) is None else MaskedScorer
        scorer: Scorer = make(
            load_model(self.directory, types=ANY).to(self.accelerator.device).eval(),
            device=self.accelerator.device,
            precision=self.options.precision,
            batch_size=self.options.batch_size,
            rank=self.accelerator.process_index,
            count=self.accelerator.num_processes,
            everywhere=functools.partial(on_every_process, self.accelerator),
        )
        return scorer

    def classify(self, task: Task, examples: Sequence[Example]) -> Items:
        """Return the fine-tuned head's answers to labelled examples."""
        markers = marker_ids(self.directory, len(self.tokenizer))
        limit = self.config.n_positions
        encoded = encode_examples(self.tokenizer, task, examples, markers, limit)
        if encoded.n_truncated:
            self.warn_once(f"{task.name}: {encoded.n_truncated:,} examples truncated to {limit:,} tokens")
        if encoded.n_unknown:
            self.warn_once(unknown_note(task.name, encoded.n_unknown, len(encoded.ids)))
        with autocast(self.accelerator.device.type, self.options.precision):
            logits = logits_of(self._head, encoded)
        return replace(items_of_logits(task, examples, logits), cut=encoded.n_truncated)

    @functools.cached_property
    def _head(self) -> GPTDoubleHeadsModel:
        model = load_model(self.directory, head=GPTDoubleHeadsModel, types=ANY)
        model.to(self.accelerator.device).eval()
        return model

    def generate(self, protocol: GeneratedProtocol, examples: Sequence[Example]) -> GeneratedTexts:
        """Return the texts that the model generates from a protocol's prompts."""
        shared = {name: getattr(self.options, name) for name in ("seed", "precision", "device", "batch_size")}
        options = TextModelOptions(**shared, **protocol.options)
        tokens = len(examples) * options.max_new_tokens
        chosen = choose_engine(self.directory, options, tokens=tokens, say=self.console.say)
        model = TextModel(self.directory, options, chosen)
        with self.console.tally(len(examples), noun="texts") as tally:
            generated = generate_texts(model, examples, protocol, options, on_text=tally.add)
        for note in generated.notes:
            self.console.warn(note)
        return generated


def open_model(directory: Path, options: EvalOptions, console: Console) -> EvaluatedModel:
    """Return the model on the device that the options name, in the process group of the environment."""
    keep_freed_memory()
    accelerator = make_accelerator(options.device)
    refuse_emulated_bf16(accelerator.device.type, options.precision)
    return EvaluatedModel(directory, options, accelerator, console)


def generate_texts(
    model: TextModel,
    examples: Sequence[Example],
    protocol: GeneratedProtocol,
    options: TextModelOptions,
    *,
    on_text: Callable[[int], None],
) -> GeneratedTexts:
    """Generate a text from each example's prompt; `on_text` is called with the number of tokens of each finished text.

    A text depends on its example, the example's index and the seed, not on the other examples. A prompt that leaves no
    room for its text is truncated on the left, and a note says how many were.
    """
    check_settings(options)
    room = prompt_room(model.n_positions, options.max_new_tokens)
    texts = [protocol.prompt(example) for example in examples]
    truncated, prompts = 0, []
    for text, ids in zip(texts, encode_pieces(model.tokenizer, texts), strict=True):
        kept = ids[-room:].tolist()
        truncated += len(kept) < len(ids)
        prompts.append(Prompt(text, kept, count_unknown(model.tokenizer, ids[-room:])))
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].ids))  # batches pad to their longest
    generation = model.generate([prompts[index] for index in order], order, options, live=False)
    for piece in generation:
        if piece.finished:
            on_text(len(generation.drafts[piece.row].token_ids))
    generated = dict(zip(order, (_generated(draft, options) for draft in generation.drafts), strict=True))
    notes = []
    if truncated:
        notes.append(f"{truncated:,} of {len(prompts):,} prompts do not fit: truncated on the left to {room:,} tokens")
    if unknown := sum(prompt.unknown for prompt in prompts):
        notes.append(unknown_note("the prompts", unknown, sum(len(prompt.ids) for prompt in prompts)))
    return GeneratedTexts([generated[index] for index in range(len(prompts))], truncated, notes)


def _generated(draft: Draft, options: TextModelOptions) -> Generated:
    """Return a draft's text and the geometric mean of its tokens' probabilities, 0 for an empty text."""
    if not options.show_probs:
        return Generated(draft.continuation.text, math.nan)
    probabilities = [report.probability for report in draft.reports]
    if not probabilities or min(probabilities) <= 0:
        return Generated(draft.continuation.text, 0.0)
    mean = math.fsum(map(math.log, probabilities)) / len(probabilities)
    return Generated(draft.continuation.text, math.exp(mean))
