"""De-tokenizers: turn word-level corpora, whose tokens are separated by spaces, into ordinary text and back.

Each corpus has regular expressions, applied in order to every line. `join` marks the spaces that ordinary text does not
have, `write` removes marks together with other characters, `split` separates tokens as the corpus does. A marked space
is removed only where splitting restores it, so

    retokenize(detokenize(text)) == text    for every text that follows the conventions: retokenize leaves it unchanged

and a line that does not is joined only as far as it can be restored. <unk> and N stay: their originals are unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARK = "\x1f"  # whitespace to a regular expression, and absent from texts
_MORE = " x"  # a stand-in for the rest of the line

Rules = tuple[tuple[re.Pattern[str], str], ...]  # (pattern, replacement)


@dataclass(frozen=True)
class Convention:
    """How a corpus separates tokens."""

    join: Rules
    write: Rules
    split: Rules

    def detokenize(self, text: str) -> str:
        """Turn a text of the corpus into ordinary text."""
        return "\n".join(self._detokenized(line) for line in text.split("\n"))

    def retokenize(self, text: str) -> str:
        """Separate the tokens of ordinary text as the corpus does."""
        return "\n".join(apply_rules(self.split, line) for line in text.split("\n"))

    def _detokenized(self, line: str) -> str:
        if _MARK in line:
            return line
        marked = apply_rules(self.join, line)
        written = self._written(marked)
        if self.retokenize(written) == line:
            return written
        chunks = marked.split(" ")
        last = max(place for place, chunk in enumerate(chunks) if chunk or not place)
        careful = " ".join(self._carefully(chunk, "" if place >= last else _MORE) for place, chunk in enumerate(chunks))
        return line if self.retokenize(line) == line != self.retokenize(careful) else careful

    def _carefully(self, chunk: str, behind: str) -> str:
        """Return a chunk without the marks that splitting restores; `behind` stands in for the rest of the line."""
        tokens = chunk.split(_MARK)
        parts = []
        while tokens:
            taken = len(tokens)
            while taken > 1 and not self._restored(tokens[:taken], behind if taken == len(tokens) else _MORE):
                taken -= 1
            parts.append(self._written(_MARK.join(tokens[:taken])))
            tokens = tokens[taken:]
        return " ".join(parts)

    def _restored(self, tokens: list[str], behind: str) -> bool:
        return self.retokenize(self._written(_MARK.join(tokens)) + behind) == " ".join(tokens) + behind

    def _written(self, marked: str) -> str:
        return apply_rules(self.write, marked).replace(_MARK, "")


def apply_rules(rules: Rules, text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def compile_rules(*patterns: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in patterns)


# Words that keep their full stop: J. U.S. e.g. Mr. and abbreviated months and states.
_ABBREVIATED = "|".join(
    (
        r"[^\W\d_]|\S*\.\S+",
        "(?i:adm|al|ave|bros|capt|cf|cmdr|co|col|corp|cos|dr|drs|etc|ft|gen|gov|hon|inc|jr|lt|ltd|maj|messrs|mr|mrs|ms)",
        "(?i:mt|nos|ph|pp|prof|pvt|rep|reps|rev|sen|sens|sgt|sr|st|ste|supt|vs)|No|Op|Vol|var|vol",
        "(?i:jan|feb|aug|sept|oct|nov|dec|calif|colo|conn|fla|ga|ill|ind|kan|ky|mass|md|mich|minn|mo|neb|nev|okla|ore)",
        "(?i:pa|tenn|tex|va|vt|wis)",
    )
)
_STOP = rf"(?<!\S)(?!(?:{_ABBREVIATED})\.(?!\S))(\S*[^\s.])\.(?!\S)"
_WORD = r"[\w>]"  # the last character of a word or of <unk>
_CLITIC = "(?i:s|t|d|m|re|ve|ll)(?!\\w)"

_JOIN_MOSES = compile_rules(
    (r"(?<=\d) : (?=\d)", f"{_MARK}:{_MARK}"),
    (r" (?=[,.;:!?](?!\S))", _MARK),
    (r"(?<!\S)([(\[{]) ", rf"\1{_MARK}"),
    (r" (?=[)\]}](?!\S))", _MARK),
    (r'(?<!\S)" ([^"]*[^"\s])\s"(?!\S)', rf'"{_MARK}\1{_MARK}"'),
    (rf"(?<={_WORD}) (?='\w)", _MARK),
    (r"(?<=s) (?='(?!\S))", _MARK),
    (r"(?<![^ ])' ((?:[^']|'\w)*[^'\s])\s'(?!\S)", rf"'{_MARK}\1{_MARK}'"),
    (r"(?<=[$£€]) (?=\d)", _MARK),
    (r"(?<=\d) (?=%)", _MARK),
    (rf"(?<={_WORD}) / (?=[\w<])", f"{_MARK}/{_MARK}"),
)
_SPLIT_MOSES = compile_rules(
    (r'(?<=\S)([()\[\]{}";:!?])', r" \1"),
    (r'([()\[\]{}";:!?])(?=\S)', r"\1 "),
    (r"(?<=\d)(,)(?!\d)(?=.|$)|(?<=[^\s\d@])(,)", r" \1\2"),
    (r"(?<!\d)(,)(?=[^\s@])|(,)(?=[^\s\d@])", r"\1\2 "),
    (rf"(?<!\S)'(?=\S)(?!{_CLITIC})", "' "),
    (rf"(?<={_WORD})(?='\w)", " "),
    (r"(?<=\S)'(?!\S)", " '"),
    (_STOP, r"\1 ."),
    (r"(?<=\S)'(?!\S)", " '"),
    (r"(?<=[$£€])(?=\d)", " "),
    (r"(?<=\d)%", " %"),
    (r"%(?=\S)", "% "),
    (rf"(?<={_WORD})/(?=[\w<])", " / "),
)

# `" I don 't , "` becomes `"I don't,"`.
ONE_BILLION_WORDS = Convention(join=_JOIN_MOSES, write=(), split=_SPLIT_MOSES)

# WikiText-2 and WikiText-103: `19 @.@ 5 % ( Moses 's )` becomes `19.5% (Moses's)`.
WIKITEXT = Convention(
    join=compile_rules(
        (r"(?<=\S) @([-,.])@ (?=\S)", rf"{_MARK}@\1@{_MARK}"),
        (r"(?<==) (?==)", _MARK),
        (r"(?<=\d) – (?=\d)", f"{_MARK}–{_MARK}"),
        (r"(?<=\d) (?=°)", _MARK),
        (r"(?<=°) (?=[CF](?!\S))", _MARK),
    )
    + _JOIN_MOSES,
    write=compile_rules((rf"{_MARK}@([-,.])@{_MARK}", r"\1")),
    split=compile_rules(
        (r"(?<=\d)([.,])(?=\d|<unk>)|(?<=<unk>)([.,])(?=\d)", r" @\1\2@ "),
        (r"(?<==)(?==)", " "),
        (r"(?<=\d)–(?=\d)", " – "),
        (r"(?<=\d)°", " °"),
        (r"°(?=\S)", "° "),
    )
    + _SPLIT_MOSES
    + compile_rules((r"(?<=[^\s@-])-(?=[^\s@-])", " @-@ ")),
)

_BRACKETS = ("-LRB-", "("), ("-LSB-", "["), ("-LCB-", "{"), ("-RRB-", ")"), ("-RSB-", "]"), ("-RCB-", "}")

# "`` I do n't , '' he said ." becomes `"I don't," he said.`.
TREEBANK = Convention(
    join=compile_rules(
        (r" (?=[,.;:?!](?!\S))", _MARK),
        (r"(?<!\S)(``?|-L[RSC]B-) (?=\S)", rf"\1{_MARK}"),
        (r"(?<=\S) (?=(?:''?|-R[RSC]B-)(?!\S))", _MARK),
        (rf"(?<={_WORD}) (?='(?i:s|d|m|re|ve|ll)(?!\S))", _MARK),
        (r"(?<=\w) (?=(?i:n't)(?!\S))", _MARK),
        (r"(?i)(?<!\S)(can) (?=not(?!\S))", rf"\1{_MARK}"),
        (r"(?i)(?<!\S)(gon|wan) (?=na(?!\S))", rf"\1{_MARK}"),
        (r"(?<=[$#]) (?=[\dN])", _MARK),
        (r"(?<=[\dN]) (?=%)", _MARK),
    ),
    write=compile_rules(
        (rf"(?<!\S)``{_MARK}|{_MARK}''(?!\S)", '"'),
        (rf"(?<!\S)`{_MARK}", "'"),
        *((re.escape(name) + _MARK, bracket) for name, bracket in _BRACKETS[:3]),
        *((_MARK + re.escape(name), bracket) for name, bracket in _BRACKETS[3:]),
    ),
    split=compile_rules(
        (r'(?<![^\s(\[{])"(?=\S)', "`` "),
        (r'(?<=\S)"', " ''"),
        *((rf"{re.escape(bracket)}(?=\S)", f"{name} ") for name, bracket in _BRACKETS[:3]),
        *((rf"(?<=\S){re.escape(bracket)}", f" {name}") for name, bracket in _BRACKETS[3:]),
        (r"(?<=\S)([;?!])", r" \1"),
        (r"(?<=\S)([:,])(?!\S)", r" \1"),
        (rf"(?<!\S)'(?=[^\s'])(?!{_CLITIC})", "` "),
        (r"(?<=[^\s'])'(?!\S)", " '"),
        (rf"{_STOP}(?=\s*$|\s(?:''?|-R[RSC]B-)(?!\S))", r"\1 ."),
        (r"(?<=[^\s'])'(?!\S)", " '"),
        (rf"(?<={_WORD})(?='(?i:s|d|m|re|ve|ll)(?!\S))", " "),
        (r"(?i)(?<=[a-z])(?=n't(?!\S))", " "),
        (r"(?i)(?<!\S)(can)(?=not(?!\S))", r"\1 "),
        (r"(?i)(?<!\S)(gon|wan)(?=na(?!\S))", r"\1 "),
        (r"(?<=[$#])(?=[\dN])", " "),
        (r"(?<=[\dN])%", " %"),
    ),
)
