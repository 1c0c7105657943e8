"""Corpora whose tokens stand apart, as people write, and back.

Each corpus has its rows of (pattern, replacement), applied one after the other to every line. `join` marks the spaces
that nobody would write, `write` drops marks with more than a space to drop, `split` sets apart again what the corpus
sets apart. A marked space is dropped only where splitting puts it back, so

    retokenize(detokenize(text)) == text    for every text that retokenize leaves as it is: that keeps the conventions

and a line that does not keep them loses what it can. <unk> and N stay: nothing says what they stood for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARK = "\x1f"  # white space to a regular expression, and in no text
_MORE = " x"  # stands for what follows in the line

Rows = tuple[tuple[re.Pattern[str], str], ...]


@dataclass(frozen=True)
class Convention:
    """How a corpus sets tokens apart."""

    join: Rows
    write: Rows
    split: Rows

    def detokenize(self, text: str) -> str:
        """Return a text of the corpus as people write it."""
        return "\n".join(self._detokenized(line) for line in text.split("\n"))

    def retokenize(self, text: str) -> str:
        """Return written text with the tokens of the corpus set apart."""
        return "\n".join(applied(self.split, line) for line in text.split("\n"))

    def _detokenized(self, line: str) -> str:
        if _MARK in line:
            return line
        marked = applied(self.join, line)
        written = self._written(marked)
        if self.retokenize(written) == line:
            return written
        chunks = marked.split(" ")
        last = max(place for place, chunk in enumerate(chunks) if chunk or not place)
        careful = " ".join(self._carefully(chunk, "" if place >= last else _MORE) for place, chunk in enumerate(chunks))
        return line if self.retokenize(line) == line != self.retokenize(careful) else careful

    def _carefully(self, chunk: str, behind: str) -> str:
        """Return a chunk without the marks that splitting restores; `behind` stands for what follows in the line."""
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
        return applied(self.write, marked).replace(_MARK, "")


def applied(rules: Rows, text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def rows(*patterns: tuple[str, str]) -> Rows:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in patterns)


# What a full stop belongs to: J. U.S. e.g. Mr. and the months and states of newspapers.
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
_WORD = r"[\w>]"  # the end of a word, <unk> among them
_CLITIC = "(?i:s|t|d|m|re|ve|ll)(?!\\w)"

_JOIN_MOSES = rows(
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
_SPLIT_MOSES = rows(
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
    join=rows(
        (r"(?<=\S) @([-,.])@ (?=\S)", rf"{_MARK}@\1@{_MARK}"),
        (r"(?<==) (?==)", _MARK),
        (r"(?<=\d) – (?=\d)", f"{_MARK}–{_MARK}"),
        (r"(?<=\d) (?=°)", _MARK),
        (r"(?<=°) (?=[CF](?!\S))", _MARK),
    )
    + _JOIN_MOSES,
    write=rows((rf"{_MARK}@([-,.])@{_MARK}", r"\1")),
    split=rows(
        (r"(?<=\d)([.,])(?=\d|<unk>)|(?<=<unk>)([.,])(?=\d)", r" @\1\2@ "),
        (r"(?<==)(?==)", " "),
        (r"(?<=\d)–(?=\d)", " – "),
        (r"(?<=\d)°", " °"),
        (r"°(?=\S)", "° "),
    )
    + _SPLIT_MOSES
    + rows((r"(?<=[^\s@-])-(?=[^\s@-])", " @-@ ")),
)

_BRACKETS = ("-LRB-", "("), ("-LSB-", "["), ("-LCB-", "{"), ("-RRB-", ")"), ("-RSB-", "]"), ("-RCB-", "}")

# "`` I do n't , '' he said ." becomes `"I don't," he said.`.
TREEBANK = Convention(
    join=rows(
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
    write=rows(
        (rf"(?<!\S)``{_MARK}|{_MARK}''(?!\S)", '"'),
        (rf"(?<!\S)`{_MARK}", "'"),
        *((re.escape(name) + _MARK, bracket) for name, bracket in _BRACKETS[:3]),
        *((_MARK + re.escape(name), bracket) for name, bracket in _BRACKETS[3:]),
    ),
    split=rows(
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
