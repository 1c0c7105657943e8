"""LAMBADA's row: the last token or the last word, as it is or as OpenAI prepared it, with and without stop words."""

from __future__ import annotations

from functools import partial

from gptkit.scoring.protocols import Evaluation, Published, ScoredProtocol
from gptkit.tasks.lambada_files import lambada
from gptkit.tasks.last_word import last_token, last_word, last_word_protocol
from gptkit.tasks.stop_words import stop_tokens

_TABLE = {
    "GPT-2 117M": (0.4599, 35.13),
    "GPT-2 345M": (0.5548, 15.60),
    "GPT-2 762M": (0.6012, 10.87),
    "GPT-2 1542M": (0.6324, 8.63),
    "best published before GPT-2": (0.5923, 99.8),
}
_PAPER = tuple(
    Published(model, measure, value, "GPT-2 paper, table 3")
    for model, values in _TABLE.items()
    for measure, value in zip(("accuracy", "perplexity"), values, strict=True)
)
_PAPER_UNFILTERED = (Published("GPT-2 1542M", "accuracy", 0.5266, "GPT-2 paper, section 3.3"),)
_LAST_TOKEN = (Published("GPT-2 117M", "accuracy", 0.4667, "huggingface/transformers#13761"),)
_LAST_WORD = (
    Published("GPT-2 117M", "accuracy", 0.3256, "EleutherAI/lm-evaluation-harness#2159"),
    Published("GPT-2 117M", "perplexity", 40.0554, "EleutherAI/lm-evaluation-harness#2159"),
    Published("GPT-2 1542M", "perplexity", 10.63, "EleutherAI/lm-evaluation-harness#911"),
)


def openai_text(text: str) -> str:
    """Return a passage as OpenAI prepared it: plain double quotes, stripped, after a newline (openai/gpt-2#131)."""
    return "\n" + text.replace("“", '"').replace("”", '"').strip()


def _as_it_is(text: str) -> str:
    return text


def _protocols() -> tuple[ScoredProtocol, ...]:
    token = "the last token of the passage, greedily; it may be the end of a word that the context begins"
    word = "what follows the last space, all of its tokens greedily, as lm-eval's lambada_openai"
    prepared = "; as OpenAI prepared it: plain double quotes, stripped, after a newline"
    table = (
        ". The paper's table stands here, the nearest of what others could reproduce (46.67 for its 45.99); the paper "
        "speaks of a stop-word filter besides"
    )
    unfiltered = ". The paper's figure without its stop-word filter stands here"
    stop = (
        "; the first token predicted may not be a whole stop word: gptkit's list, OpenAI's was never published "
        "(the perplexity is not filtered)"
    )
    tokens, openai_tokens = last_token(_as_it_is), last_token(openai_text)
    words, openai_words = last_word(_as_it_is), last_word(openai_text)
    of_token = partial(last_word_protocol, per_token=True)
    return (
        of_token("last-token", token, tokens, published=_LAST_TOKEN),
        of_token("last-token-openai", token + prepared + table, openai_tokens, published=_PAPER),
        of_token("last-token-no-stop-words", token + stop, tokens, filtered=True),
        of_token("last-token-openai-no-stop-words", token + prepared + stop, openai_tokens, filtered=True),
        last_word_protocol("last-word", word, words, published=_LAST_WORD),
        last_word_protocol("last-word-openai", word + prepared + unfiltered, openai_words, published=_PAPER_UNFILTERED),
        last_word_protocol("last-word-no-stop-words", word + stop, words, filtered=True),
        last_word_protocol("last-word-openai-no-stop-words", word + prepared + stop, openai_words, filtered=True),
    )


LAMBADA = Evaluation(
    "lambada",
    "the last word of a passage, which takes the whole passage to guess",
    "lambada_test.jsonl of openaipublic.blob.core.windows.net/gpt-2/data",
    lambada,
    _protocols(),
    size=5153,
    banned=stop_tokens,
)
