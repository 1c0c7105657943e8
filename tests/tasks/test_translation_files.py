"""The WMT tests as .sgm and as lines: pairs, the example pairs, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptkit.errors import InputError
from gptkit.tasks.benchmarks.wmt14 import wmt14

ENGLISH = [f"Sentence {number} & more." for number in range(8)]
FRENCH = [f"Phrase {number} & plus." for number in range(8)]


def write_sgm(path: Path, kind: str, texts: list[str]) -> None:
    head = [f'<{kind} trglang="fr" setid="newstest2014" srclang="any">', '<doc docid="12-bbc" genre="news">', "<p>"]
    segments = [f'<seg id="{i}">{text.replace("&", "&amp;")}</seg>' for i, text in enumerate(texts, 1)]
    path.write_text("\n".join([*head, *segments, "</p>", "</doc>", f"</{kind}>"]) + "\n", encoding="utf-8")


def write_official(folder: Path) -> None:
    write_sgm(folder / "newstest2014-fren-src.en.sgm", "srcset", ENGLISH)
    write_sgm(folder / "newstest2014-fren-ref.fr.sgm", "refset", FRENCH)


def test_official_files_name_their_sentences(tmp_path: Path) -> None:
    write_official(tmp_path)
    write_sgm(tmp_path / "newstest2013-src.en.sgm", "srcset", [f"One {number}" for number in range(7)])
    write_sgm(tmp_path / "newstest2013-ref.fr.sgm", "refset", [f"Un {number}" for number in range(7)])
    found = wmt14(str(tmp_path), source="en", target="fr")
    assert found.notes == ()
    assert len(found.examples) == 8
    first = found.examples[0]
    assert first.fields[:2] == ("Sentence 0 & more.", "Phrase 0 & plus.")
    assert first.fields[2:] == (tuple(f"One {number}" for number in range(5)), tuple(f"Un {n}" for n in range(5)))
    assert (first.identifier, first.where) == ("12-bbc 1", f"{tmp_path}/newstest2014-fren-src.en.sgm:4")


def test_without_another_year_the_first_pairs_are_shown_and_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "newstest2014.en").write_text("\n".join(ENGLISH))
    (tmp_path / "newstest2014.fr").write_text("\r\n".join(FRENCH) + "\r\n")
    found = wmt14(str(tmp_path), source="fr", target="en")
    assert [one.fields[0] for one in found.examples] == FRENCH[5:]
    assert found.examples[0].fields[2:] == (tuple(FRENCH[:5]), tuple(ENGLISH[:5]))
    assert found.examples[0].identifier == "6"
    assert "the first 5 pairs of the test set are used as few-shot examples and are not scored" in found.notes[0]


def test_a_bad_file_is_told_with_its_line(tmp_path: Path) -> None:
    def broken(old: str, new: str, name: str = "newstest2014-fren-ref.fr.sgm") -> None:
        write_official(tmp_path)
        path = tmp_path / name
        path.write_text(path.read_text().replace(old, new))

    for old, new, message in (
        ("Phrase 2 &amp; plus.</seg>", "Phrase 2", r"does not begin and end on its line \(.*-ref\.fr\.sgm:6\)"),
        ("Phrase 3 &amp; plus.", "", r"'sentence' is empty \(.*-ref\.fr\.sgm:7\)"),
        (
            '<seg id="4">',
            '<seg id="44">',
            r"12-bbc 4 has no counterpart in .*-ref\.fr\.sgm \(.*-src\.en\.sgm:7\)",
        ),
        ("<seg", "<sag", r"no <seg> in this file \(.*-ref\.fr\.sgm:1\)"),
        ("Phrase 5", "Phrase\0", r"a NUL byte.* \(.*-ref\.fr\.sgm:9, byte 308\)"),
    ):
        broken(old, new)
        with pytest.raises(InputError, match=message):
            wmt14(str(tmp_path), source="en", target="fr")
    (tmp_path / "newstest2014-fren-src.en.sgm").unlink()
    with pytest.raises(
        InputError, match=r"looked for newstest2014-fren-src\.en\.sgm \+ newstest2014-fren-ref\.fr\.sgm"
    ):
        wmt14(str(tmp_path), source="en", target="fr")
    (tmp_path / "newstest2014.en").write_text("One\nTwo\n")
    (tmp_path / "newstest2014.fr").write_text("Un\nDeux\nTrois\n")
    with pytest.raises(InputError, match=r"sentence 3 has no counterpart in newstest2014\.en \(.*\.fr:3\)"):
        wmt14(str(tmp_path), source="en", target="fr")
    (tmp_path / "newstest2014.fr").write_bytes(b"Un\nD\xe9ux\n")
    with pytest.raises(InputError, match=r"not valid UTF-8: 0xe9 .*newstest2014\.fr:2"):
        wmt14(str(tmp_path), source="en", target="fr")
