"""English function words, which cannot be the last word of a passage of LAMBADA.

The list is gptkit's own: the articles, pronouns, prepositions, conjunctions, auxiliaries and particles of English
grammars. The one behind GPT-2's figure was never published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

_WORDS = """
a an the this that these those each every either neither some any no all both few many much more most other another
such own same several enough
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves who whom whose which what whatever whoever whichever one
someone something anyone anything everyone everything nobody nothing none
about above across after against along among around as at before behind below beneath beside between beyond by down
during except for from in inside into like near of off on onto out outside over past since through throughout to
toward towards under until up upon with within without
and or but nor so yet if than then because while although though unless whether when where why how
am is are was were be been being do does did doing done have has had having will would shall should can could may
might must ought
not never ever also just only even very too quite rather still again already always often now here there
"""
STOP_WORDS = tuple(_WORDS.split())


def stop_tokens(encoder: Encoder) -> list[int]:
    """Return the tokens that are a stop word with the space before it, in lower case or capitalised."""
    words = [form for word in STOP_WORDS for form in (word, word.capitalize())]
    return sorted({int(ids[0]) for ids in encoder.encode([f" {word}" for word in words]) if len(ids) == 1})
