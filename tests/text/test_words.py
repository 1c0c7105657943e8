"""Words by Unicode's rule, worked out by hand in several scripts."""

from __future__ import annotations

import pytest

from gptkit.text.words import count_words, unseparated, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The dog's well-known e-mail, isn’t it?", ["The", "dog's", "well", "known", "e", "mail", "isn’t", "it"]),
        ("It costs 1,234.50 (3.14 at x86).", ["It", "costs", "1,234.50", "3.14", "at", "x86"]),
        ("时成和者，名世！", [*"时成和者名世"]),
        ("私はカタカナとコンピューターです", ["私", "は", "カタカナ", "と", "コンピューター", "で", "す"]),
        ("한국어 문장입니다.", ["한국어", "문장입니다"]),
        ("ที่นี่", ["ที่", "นี่"]),  # characters with their marks
        ("اللُّغَةُ العربية؟", ["اللُّغَةُ", "العربية"]),
        ("हिन्दी भाषा में।", ["हिन्दी", "भाषा", "में"]),
        ("Привет, мир!", ["Привет", "мир"]),
        ("cafe\u0301 naïve", ["cafe\u0301", "naïve"]),
        ("中文English混排2024年", ["中", "文", "English", "混", "排", "2024", "年"]),
        ("ok 👍🏽 👨‍👩‍👧🇩🇪🇫🇷", ["ok", "👍🏽", "👨‍👩‍👧", "🇩🇪", "🇫🇷"]),
        ("3🇩 \u0301x", ["3", "🇩", "x"]),  # half a flag before a space
        ("... — «»! __ 。、\n\t", []),
        ("", []),
    ],
)
def test_words_by_hand(text: str, words: list[str]) -> None:
    assert words_of(text) == words
    assert count_words(text) == len(words)


def test_white_space_separates_the_words_of_some_scripts_only() -> None:
    for text in ("The dog's well-known.", "Привет, мир!", "हिन्दी भाषा में।", "한국어 문장입니다.", "...", ""):
        assert not unseparated(len(text.split()), [text])
    said = "white space separates only 2 of the 6 Unicode words (UAX #29; each CJK character is one)"
    assert unseparated(2, ["时成和者，", "名世！"]) == said
