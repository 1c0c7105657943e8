"""Everything that `gptkit inspect` shows of one sequence: its page, its sidecar, its summary and its JSON read this.

P positions (the separator or start token first, then the text), L layers, H heads. All that concerns a prediction is
indexed by the position after which it is made: row p predicts token p + 1, the last row what would follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gptkit.inspect.answer import Answer, answer_of
from gptkit.inspect.attention import Attention, attention_of
from gptkit.inspect.hand import Hand, hand_of
from gptkit.inspect.head_types import HeadTypes, head_types_of
from gptkit.inspect.knock_out import MOST_SECONDS, KnockOut, knock_out_of_answer, knock_out_of_text, seconds_of
from gptkit.inspect.lens import Lens, lens_of
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
    knock_out_seconds: float = 0  # estimated, on two cores
    knock_out: KnockOut | None = None  # of the text; None if left out
    answer_knock_out: KnockOut | None = None


def inspect_model(
    directory: FilePath,
    texts: Sequence[str],
    *,
    max_tokens: int = 128,
    head: tuple[int, int] | None = None,
    knock_out: bool | None = None,
    device: str = "auto",
) -> Inspection:
    """Read the texts with the model in a directory; see `read` and `inspection_of`."""
    reading = read(directory, texts, max_tokens)
    return inspection_of(directory, reading, head=head, knock_out=knock_out, device=device)


def inspection_of(
    directory: FilePath,
    reading: Reading,
    *,
    head: tuple[int, int] | None = None,
    knock_out: bool | None = None,
    device: str = "auto",
    name: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Inspection:
    """Return what the model in a directory computes on a reading, in fp32; `head` is (layer, head), from 0.

    Without `head`, the head of the clearest type is shown by hand. Of a pair's sequences the first order is shown, of a
    multiple choice's the choice that the model takes. `knock_out` of None computes the knock-out if that is quick;
    `say` is told if it is left out, or takes long.
    """
    loaded = load_model(directory, head=saved_head(directory)).to(choose_device(device))  # type: ignore[arg-type]
    with translate_out_of_memory("pass a shorter text, or --max-tokens"):
        answer, ids = None, reading.sequences[0]
        if isinstance(loaded, GPTDoubleHeadsModel) and reading.asked is not None:
            answer = answer_of(loaded, reading.asked, reading.fields)
            ids = reading.sequences[answer.chosen if reading.asked.task.target == "choice" else 0]
        model = loaded.language_model() if isinstance(loaded, GPTDoubleHeadsModel) else loaded
        assert isinstance(model, GPTForCausalLM)
        found = _inspection(model, reading, ids, answer, head, name or str(directory))
        if not _wants_knock_out(found.knock_out_seconds, knock_out, model.device, say):
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
    answer: Answer | None,
    head: tuple[int, int] | None,
    name: str,
) -> Inspection:
    traced = trace(model, ids)
    logits = model.lm_head(traced.final).float()  # (position, vocab)
    if not bool(logits.isfinite().all()):
        raise not_finite("the model's logits are")
    loss = loss_of(logits, torch.tensor(ids, device=logits.device))
    targets = torch.from_numpy(loss.targets).to(logits.device)
    lens = lens_of(model, traced, logits, targets)
    heads = head_types_of(model, excluded={ids[0], *reading.names})
    embeddings = (traced.token_embedding.cpu().numpy(), traced.position_embedding.cpu().numpy())
    occurring = np.unique(np.concatenate([ids, loss.targets, loss.top_ids.ravel(), lens.top_ids.ravel()]))
    vocabulary = {id: reading.piece(id) for id in occurring.tolist()}
    return Inspection(
        model=name,
        family="GPT-2" if model.config.pre_norm else "GPT-1",
        fields=reading.fields,
        vocabulary=vocabulary,
        tokens=Tokens(np.array(ids), tuple(vocabulary[id] for id in ids), *embeddings),
        attention=attention_of(traced),
        heads=heads,
        hand=hand_of(model, traced, *(heads.clearest() if head is None else head)),
        path=path_of(traced),
        lens=lens,
        shares=shares_of(model, traced, logits, targets),
        loss=loss,
        answer=answer,
        knock_out_seconds=seconds_of(model, len(ids), 0 if reading.asked is None else len(reading.asked.encoded.ids)),
    )
