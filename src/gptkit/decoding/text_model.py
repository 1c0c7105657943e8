"""Generate text from text prompts: a model with its tokenizer, and the samples of one call as pieces of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gptkit.decoding.engines import ChosenEngine, Engine, choose_engine, open_tokenizer, torch_model
from gptkit.decoding.loop import Decoder, FinishReason, Step, check_prompt
from gptkit.decoding.sampling import TokenReport
from gptkit.decoding.text import Continuation, never_sampled, stop_ids
from gptkit.decoding.text_options import TextModelOptions, full_prompt, stop_strings
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.encoding import count_unknown, encode_pieces
from gptkit.text.tokenizers.shown import pieces_of

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from gptkit.decoding.beams import BeamSearch

ALTERNATIVES = 5
FIRST_TOKENS, FIRST_TOP_K = 40, 40


class Prompt(NamedTuple):
    """The user's text (None for unconditional text), the ids that the model reads, and how many are unknown tokens."""

    text: str | None
    ids: list[int]
    unknown: int = 0


class TextPiece(NamedTuple):
    """A piece of text, often empty, of sample number `row`; `finished` marks its last."""

    row: int
    text: str
    finished: bool


@dataclass
class Draft:
    """A sample in progress."""

    prompt: str
    continuation: Continuation
    token_ids: list[int] = field(default_factory=list)  # including those of a stop string, but no stop token
    reports: list[TokenReport] = field(default_factory=list)  # one per token, if asked for
    finish_reason: FinishReason | None = None

    def take(self, step: Step) -> str:
        """Add a step and return its piece of text; a cut of the text finishes the sample."""
        piece = ""
        if step.token_id is not None:
            self.token_ids.append(step.token_id)
            if step.report is not None:
                self.reports.append(step.report)
            piece = self.continuation.push(step.token_id)
        if step.finish_reason is not None:
            piece += self.continuation.end()
        self.finish_reason = "stop" if self.continuation.is_cut else step.finish_reason
        return piece


@dataclass
class Generation:
    """Samples being generated: iterate once over the pieces of text, then read `drafts`, `slides` and `speed`."""

    decoding: Decoder | BeamSearch
    drafts: Sequence[Draft]
    slides: Sequence[int]  # the number of tokens kept when a window first slid, if one did

    def __iter__(self) -> Iterator[TextPiece]:
        for step in self.decoding:
            draft = self.drafts[step.row]
            piece = draft.take(step)
            if draft.finish_reason is not None and step.finish_reason is None:
                self.decoding.finish(step.row, draft.finish_reason)
            yield TextPiece(step.row, piece, draft.finish_reason is not None)

    @property
    def num_tokens(self) -> int:
        """The number of new tokens of all samples."""
        return sum(len(draft.token_ids) for draft in self.drafts)

    @property
    def speed(self) -> dict[str, float]:
        """The seconds of prefill and decoding, and the new tokens per second of decoding."""
        seconds = self.decoding.decode_seconds
        return {
            "prefill_seconds": self.decoding.prefill_seconds,
            "decode_seconds": seconds,
            "tokens_per_second": self.num_tokens / max(seconds, 1e-9),
        }


class TextModel:
    """A model directory with its tokenizer, opened with the engine that `choose_engine` chose for the options.

    Beams search in torch, in the precision chosen. Raises InputError or UsageError for a directory without model or
    tokenizer, and for options that do not suit the model.
    """

    def __init__(self, directory: Path, options: TextModelOptions, chosen: ChosenEngine) -> None:
        self._engine: Engine | None = None
        if options.beams > 1:
            self._searched = torch_model(directory, options, chosen.precision)
            self.n_positions: int = self._searched.config.n_positions
            self.vocab_size: int = self._searched.config.vocab_size
        else:
            self._engine = chosen.open()
            self.n_positions, self.vocab_size = self._engine.n_positions, self._engine.vocab_size
        self.tokenizer = open_tokenizer(directory)
        self._forbidden = never_sampled(self.tokenizer, self.vocab_size)
        self._separator = separator_id(self.tokenizer)

    @property
    def compile_seconds(self) -> float:
        """The seconds of compiling so far; beam search compiles nothing."""
        return 0.0 if self._engine is None else self._engine.compile_seconds

    def read(self, prompt: str | None, options: TextModelOptions) -> Prompt:
        """Return a prompt as the model reads it; unconditional text starts from the document separator.

        Raises UsageError for a prompt that is empty or longer than the context.
        """
        if prompt is None:
            return Prompt(None, [self._separator])
        (encoded,) = encode_pieces(self.tokenizer, [full_prompt(options, prompt)])
        ids: list[int] = encoded.tolist()
        check_prompt(ids, self.n_positions, self.vocab_size)
        return Prompt(prompt, ids, count_unknown(self.tokenizer, encoded))

    def generate(
        self, prompts: Sequence[Prompt], indices: Sequence[int], options: TextModelOptions, *, live: bool
    ) -> Generation:
        """Return the generation of one sample per prompt; with `live`, pieces of text come as soon as they are known.

        A sample's text depends only on its prompt, the options and its entry of `indices`.
        """
        ends = stop_ids(self.tokenizer)
        prompt_ids = [prompt.ids for prompt in prompts]
        shared: dict[str, Any] = {
            "max_new_tokens": options.max_new_tokens,
            "stop_ids": frozenset() if options.ignore_eos else ends,
            "forbidden_ids": self._forbidden | (ends if options.ignore_eos else frozenset()),
        }
        slides: list[int] = []
        decoding: Decoder | BeamSearch
        if self._engine is None:
            from gptkit.decoding.beams import BeamSearch

            decoding = BeamSearch(self._searched, prompt_ids, beams=options.beams, **shared)
        else:
            decoding = Decoder(
                self._engine,
                prompt_ids,
                rules=options,
                seed=options.seed,
                indices=indices,
                on_slide=slides.append,
                batch_size=options.batch_size,
                explain=ALTERNATIVES if options.show_probs else 0,
                **shared,
            )
        stops = stop_strings(options)
        drafts = []
        for prompt in prompts:
            context = [] if prompt.text is None else prompt.ids  # the separator is not text
            text = Continuation(self.tokenizer, context, stops=stops, sentences=options.sentences, live=live)
            drafts.append(Draft(prompt.text or "", text))
        return Generation(decoding, drafts, slides)

    def facts(self, draft: Draft) -> dict[str, Any]:
        """Return a finished sample as `--json` prints it."""
        facts: dict[str, Any] = {
            "prompt": draft.prompt,
            "text": draft.continuation.text,
            "token_ids": draft.token_ids,
            "num_tokens": len(draft.token_ids),
            "finish_reason": draft.finish_reason,
        }
        if draft.reports:
            facts["tokens"] = [
                {
                    **self._token(token_id, report.probability),
                    "rank": report.rank,
                    "alternatives": [self._token(*alternative) for alternative in report.alternatives],
                }
                for token_id, report in zip(draft.token_ids, draft.reports, strict=True)
            ]
        return facts

    def _token(self, token_id: int, probability: float) -> dict[str, Any]:
        text = str(self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
        (piece,) = pieces_of(self.tokenizer, [token_id])
        return {"token_id": token_id, "text": text, "piece": piece, "probability": probability}


def first_sample(directory: Path, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Return the facts of the text that a model writes by itself: no prompt, seed 0, top-k 40, 40 tokens."""
    options = TextModelOptions(max_new_tokens=FIRST_TOKENS, top_k=FIRST_TOP_K)
    model = TextModel(directory, options, choose_engine(directory, options, tokens=FIRST_TOKENS, say=say))
    generation = model.generate([model.read(None, options)], [0], options, live=False)
    for _ in generation:
        pass
    return model.facts(generation.drafts[0])
