"""The two ways of decoding in one form: drawing token after token from an engine, and beam search in a torch model."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gptkit.decoding.engine import Engine
from gptkit.decoding.engines import open_engine
from gptkit.decoding.loop import Decoder, FinishReason, Step
from gptkit.decoding.text_options import sampling_rules
from gptkit.options import GenerateOptions

ALTERNATIVES = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to decode: the prompts, the index of each one's random numbers, the ids that end a text or never come."""

    prompt_ids: Sequence[Sequence[int]]
    indices: Sequence[int]
    stop_ids: Collection[int]
    forbidden_ids: Collection[int]
    on_slide: Callable[[int], None]


class Decoding(Protocol):
    """One decoding: iterate once over its steps, then read the seconds they took."""

    prefill_seconds: float
    decode_seconds: float

    def __iter__(self) -> Iterator[Step]: ...

    def finish(self, row: int, reason: FinishReason) -> None:
        """Ask for no more steps of a row."""


class Sampler:
    """Draws from an engine; `tokens` is how many new ones are expected in all, by which compile auto decides."""

    def __init__(self, directory: Path, options: GenerateOptions, tokens: int, tell: Callable[[str], None]) -> None:
        self._engine: Engine = open_engine(
            directory,
            device=options.device,
            precision=options.precision,
            quantize=options.quantize,
            compile=options.compile,
            tokens=tokens,
            tell=tell,
        )
        self.n_positions = self._engine.n_positions
        self.vocab_size = self._engine.vocab_size

    @property
    def compile_seconds(self) -> float:
        return self._engine.compile_seconds

    def decode(self, job: Job, options: GenerateOptions) -> Decoding:
        """Return the decoding of a job by the options' rules; raises what `Decoder` raises."""
        return Decoder(
            self._engine,
            job.prompt_ids,
            max_new_tokens=options.max_new_tokens,
            rules=sampling_rules(options),
            seed=options.seed,
            indices=job.indices,
            stop_ids=job.stop_ids,
            forbidden_ids=job.forbidden_ids,
            on_slide=job.on_slide,
            batch_size=options.batch_size,
            explain=ALTERNATIVES if options.show_probs else 0,
        )


class Searcher:
    """Searches with beams in the torch model, one prompt after the other."""

    compile_seconds = 0.0

    def __init__(self, directory: Path, options: GenerateOptions) -> None:
        from gptkit.decoding.placement import choose_device, choose_dtype
        from gptkit.model.loading import load_model

        device = choose_device(options.device)
        self._model = load_model(directory, dtype=choose_dtype(options.precision, device))
        self._model.to(device)  # type: ignore[arg-type]  # its wrapper in transformers loses `self`
        self.n_positions: int = self._model.config.n_positions
        self.vocab_size: int = self._model.config.vocab_size

    def decode(self, job: Job, options: GenerateOptions) -> Decoding:
        """Return the search of a job's prompts."""
        return _Search(self._model, job, options)


class _Search:
    def __init__(self, model: Any, job: Job, options: GenerateOptions) -> None:
        self.prefill_seconds = 0.0  # a part of the search
        self.decode_seconds = 0.0
        self._model = model
        self._job = job
        self._options = options
        self._finished: set[int] = set()

    def __iter__(self) -> Iterator[Step]:
        """Yield a sample's steps together, once it is found."""
        from gptkit.decoding.beams import beam_search

        for row, ids in enumerate(self._job.prompt_ids):
            began = time.perf_counter()
            [found] = beam_search(
                self._model,
                [ids],
                beams=self._options.beams,
                max_new_tokens=self._options.max_new_tokens,
                stop_ids=self._job.stop_ids,
                forbidden_ids=self._job.forbidden_ids,
            )
            self.decode_seconds += time.perf_counter() - began
            for token_id in found.token_ids:
                yield Step(row, token_id, None)
                if row in self._finished:
                    break
            else:
                yield Step(row, None, found.finish_reason)

    def finish(self, row: int, reason: FinishReason) -> None:
        self._finished.add(row)
