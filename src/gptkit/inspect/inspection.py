"""Everything that `gptkit inspect` shows of one sequence: its page, its sidecar, its summary and its JSON read this.

P positions (the separator or start token first, then the text), L layers, H heads. All that concerns a prediction is
indexed by the position after which it is made: row p predicts token p + 1, the last row what would follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gptkit.inspect.answer import Answer, answer_of
from gptkit.inspect.attention import Attention, attention_of
from gptkit.inspect.fine_tuned import FineTuned, fine_tuned_of
from gptkit.inspect.hand import Hand, hand_of
from gptkit.inspect.head_types import HeadTypes, head_types_of
from gptkit.inspect.knock_out import MOST_SECONDS, KnockOut, knock_out_of_answer, knock_out_of_text, seconds_of
from gptkit.inspect.learning import Learning, learning_of
from gptkit.inspect.lens import Lens, lens_of
from gptkit.inspect.live import Live, live_of
from gptkit.inspect.loss import Loss, loss_of
from gptkit.inspect.path import Path, path_of
from gptkit.inspect.reading import Fields, Reading, read
from gptkit.inspect.shares import Shares, shares_of
from gptkit.inspect.trace import trace
from gptkit.model.loading import load_model, saved_head
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import not_finite
from gptkit.system.limits import translate_out_of_memory
from gptkit.system.processor import choose_device


@dataclass(frozen=True, eq=False)
class Tokens:
    ids: NDArray[np.int64]  # (position,)
    pieces: tuple[str, ...]
    token_embedding: NDArray[np.float32]  # (position, n_embd)
    position_embedding: NDArray[np.float32]  # (position, n_embd)


@dataclass(frozen=True, eq=False)
class Inspection:
    """One sequence in one model; `vocabulary` has the piece of every id that occurs in any part."""

    model: str
    family: Literal["GPT-1", "GPT-2"]  # post-norm, pre-norm
    fields: Fields
    vocabulary: dict[int, str]
    tokens: Tokens
    attention: Attention
    heads: HeadTypes
    hand: Hand
    path: Path
    lens: Lens
    shares: Shares
    loss: Loss
    answer: Answer | None  # of a fine-tuned model
    fine_tuned: FineTuned | None  # the same
    learning: Learning | None  # if the weights of its run are asked for
    live: Live | str  # or why there is none
    knock_out_seconds: float  # estimated, on two cores
    knock_out: KnockOut | None = None  # of the text; None if left out
    answer_knock_out: KnockOut | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is shown, and where it is computed."""

    head: tuple[int, int] | None = None  # (layer, head) by hand, from 0 [the head of the clearest type]
    knock_out: bool | None = None  # [if it is quick]
    weights: Mapping[int, FilePath] = field(default_factory=dict)  # by step: of the view of learning
    live: bool = True
    device: str = "auto"
    name: str | None = None  # of the model [its directory]


def inspect_model(directory: FilePath, texts: Sequence[str], *, max_tokens: int = 128, **settings: Any) -> Inspection:
    """Read the texts with the model in a directory; see `read`, `Settings` and `inspection_of`."""
    return inspection_of(directory, read(directory, texts, max_tokens), Settings(**settings))


def inspection_of(
    directory: FilePath,
    reading: Reading,
    settings: Settings = Settings(),
    say: Callable[[str], None] = lambda line: None,
) -> Inspection:
    """Return what the model in a directory computes on a reading, in fp32.

    Of a pair's sequences the first order is shown, of a multiple choice's the choice that the model takes. `say` is
    told of a knock-out that is left out, or takes long, and of the steps of a run.
    """
    device = choose_device(settings.device)
    loaded = load_model(directory, head=saved_head(directory)).to(device)  # type: ignore[arg-type]
    with translate_out_of_memory("pass a shorter text, or --max-tokens"):
        answer, tuned, ids = None, None, reading.sequences[0]
        if isinstance(loaded, GPTDoubleHeadsModel) and reading.asked is not None:
            answer = answer_of(loaded, reading.asked, reading.fields)
            tuned = fine_tuned_of(loaded, reading.asked)
            ids = reading.sequences[answer.chosen if reading.asked.task.target == "choice" else 0]
        model = loaded.language_model() if isinstance(loaded, GPTDoubleHeadsModel) else loaded
        assert isinstance(model, GPTForCausalLM)
        named = replace(settings, name=settings.name or str(directory))
        found = _inspection(model, reading, ids, (answer, tuned), named, say)
        if not _wants_knock_out(found.knock_out_seconds, settings.knock_out, model.device, say):
            return found
        targets = torch.from_numpy(found.loss.targets)
        found = replace(found, knock_out=knock_out_of_text(model, torch.tensor(ids), targets))
        if isinstance(loaded, GPTDoubleHeadsModel) and reading.asked is not None:
            found = replace(found, answer_knock_out=knock_out_of_answer(loaded, reading.asked))
        return found


def _wants_knock_out(seconds: float, asked: bool | None, device: torch.device, say: Callable[[str], None]) -> bool:
    """Return whether to compute the knock-out, on a CPU by default only if it takes seconds."""
    is_quick = device.type != "cpu" or seconds <= MOST_SECONDS
    if not is_quick and asked is None:
        say(f"view 7, knock-out, is left out: it takes about {seconds:,.0f} s on two cores; to compute it: --knock-out")
    if not is_quick and asked:
        say(f"the knock-out takes about {seconds:,.0f} s on two cores")
    return is_quick if asked is None else asked


@torch.no_grad()
def _inspection(
    model: GPTForCausalLM,
    reading: Reading,
    ids: Sequence[int],
    answered: tuple[Answer | None, FineTuned | None],
    settings: Settings,
    say: Callable[[str], None],
) -> Inspection:
    traced = trace(model, ids)
    logits = model.lm_head(traced.final).float()  # (position, vocab)
    if not bool(logits.isfinite().all()):
        raise not_finite("the model's logits are")
    loss = loss_of(logits, torch.tensor(ids, device=logits.device))
    targets = torch.from_numpy(loss.targets).to(logits.device)
    lens = lens_of(model, traced, logits, targets)
    excluded = {ids[0], *reading.names}
    heads = head_types_of(model, excluded)
    learning = (
        learning_of(settings.weights, ids, loss.targets, excluded, model.device, say) if settings.weights else None
    )
    embeddings = (traced.token_embedding.cpu().numpy(), traced.position_embedding.cpu().numpy())
    answer, tuned = answered
    occurring = [np.array(ids), loss.targets, loss.top_ids, lens.top_ids]
    if learning is not None:
        occurring.append(learning.top_ids)
    if tuned is not None:
        occurring.append(tuned.ids[tuned.ids >= 0])
    every = np.unique(np.concatenate([part.ravel() for part in occurring]))
    vocabulary = {id: reading.piece(id) for id in every.tolist()}
    return Inspection(
        model=str(settings.name),
        family="GPT-2" if model.config.pre_norm else "GPT-1",
        fields=reading.fields,
        vocabulary=vocabulary,
        tokens=Tokens(np.array(ids), tuple(vocabulary[id] for id in ids), *embeddings),
        attention=attention_of(traced),
        heads=heads,
        hand=hand_of(model, traced, *(settings.head or heads.clearest())),
        path=path_of(traced),
        lens=lens,
        shares=shares_of(model, traced, logits, targets),
        loss=loss,
        answer=answer,
        fine_tuned=tuned,
        learning=learning,
        live=_live(model, reading) if settings.live else "it was left out",
        knock_out_seconds=seconds_of(model, len(ids), 0 if reading.asked is None else len(reading.asked.encoded.ids)),
    )


def _live(model: GPTForCausalLM, reading: Reading) -> Live | str:
    """Return the model's copy for the page, or why there is none."""
    if reading.asked is not None:
        return "a fine-tuned model reads the fields of its format, not a text"
    return live_of(model, reading.tokenizer)
