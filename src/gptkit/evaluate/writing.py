"""The texts that an evaluation asks a model to write, by the decoder of `gptkit generate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from gptkit.decoding.text_model import Draft, Prompt, TextModel
from gptkit.decoding.text_options import TextModelOptions, check_settings, check_vocabulary
from gptkit.scoring.protocols import Generated, GeneratedProtocol
from gptkit.text.examples import Example
from gptkit.text.tokenizers.encoding import encode_pieces


class GeneratedTexts(NamedTuple):
    """The texts in the order of the examples, how many prompts were cut, and notes on what the model did not see."""

    texts: list[Generated]
    truncated: int
    notes: tuple[str, ...]


def writing_options(protocol: GeneratedProtocol, base: TextModelOptions) -> TextModelOptions:
    """Return the options of a protocol's texts: its own, and for what it leaves open (seed, device, ...) the base's."""
    options: Mapping[str, Any] = protocol.options
    return replace(base, **options)


def generate_texts(
    model: TextModel,
    examples: Sequence[Example],
    protocol: GeneratedProtocol,
    options: TextModelOptions,
    *,
    on_text: Callable[[int], None],
) -> GeneratedTexts:
    """Return the text that the model writes after each example's prompt; `on_text` is called with the tokens of each.

    A text depends on the example, its place among `examples` and the seed, not on those beside it. A prompt that leaves
    no room for its text is cut at the left, so that its end stays, and a note says how many were.
    """
    check_settings(options)
    check_vocabulary(options, model.vocab_size)
    room = max(1, model.n_positions // 2, model.n_positions - options.max_new_tokens)
    prompts, cut = _prompts(model, [protocol.prompt(one) for one in examples], room)
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place].ids))  # a group is padded to its longest
    generation = model.generate([prompts[place] for place in order], order, options, live=False)
    for one in generation:
        if one.finished:
            on_text(len(generation.drafts[one.row].token_ids))
    texts = dict(zip(order, (_generated(draft, options) for draft in generation.drafts), strict=True))
    return GeneratedTexts([texts[place] for place in range(len(prompts))], cut, _notes(prompts, cut, room))


def _prompts(model: TextModel, texts: Sequence[str], room: int) -> tuple[list[Prompt], int]:
    """Return the last `room` tokens of each text, and how many have more."""
    encoded = [ids.tolist() for ids in encode_pieces(model.tokenizer, texts)]
    unknown = model.tokenizer.unk_token_id
    prompts = [Prompt(text, ids[-room:], ids[-room:].count(unknown)) for text, ids in zip(texts, encoded, strict=True)]
    return prompts, sum(len(ids) > room for ids in encoded)


def _generated(draft: Draft, options: TextModelOptions) -> Generated:
    """Return a draft's text and the geometric mean of its tokens' probabilities, 0 where it wrote none."""
    if not options.show_probs:
        return Generated(draft.continuation.text, math.nan)
    probabilities = [one.probability for one in draft.reports]
    if not probabilities or min(probabilities) <= 0:
        return Generated(draft.continuation.text, 0.0)
    mean = math.fsum(map(math.log, probabilities)) / len(probabilities)
    return Generated(draft.continuation.text, math.exp(mean))


def _notes(prompts: Sequence[Prompt], cut: int, room: int) -> tuple[str, ...]:
    of = f"of {len(prompts):,} prompts"
    unknown = sum(one.unknown > 0 for one in prompts)
    notes = {
        f"{cut:,} {of} are longer than the context allows: cut at the left to {room:,} tokens": cut,
        f"{unknown:,} {of} hold tokens that are unknown to the tokenizer": unknown,
    }
    return tuple(note for note, count in notes.items() if count)
