from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.errors import UsageError
from gptkit.text.pieces import Piece
from gptkit.text.split import (
    TRAIN,
    VALIDATION,
    Split,
    choose_split,
    cut_point,
    divide,
    fraction_of,
    hashes_below,
    held_out,
    max_fraction,
    scan,
)

FRACTIONS = st.floats(0.001, 0.999)
SIZES = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 50)), min_size=1)  # (hash, bytes)


def as_pieces(documents: list[list[str]]) -> list[Piece]:
    return [Piece(text, number, "here") for number, parts in enumerate(documents) for text in parts]


def test_documents_validate_in_the_order_of_their_hashes_and_what_overshoots_is_skipped() -> None:
    hashes = np.array([50, 40, 30, 20, 10, 60], np.uint64)
    sizes = np.array([800, 20, 60, 70, 40, 10], np.int64)  # 40, then 70 to 110: enough
    assert held_out(hashes, sizes, 0.1).tolist() == [False, False, False, True, True, False]
    sizes = np.array([750, 20, 60, 120, 40, 10], np.int64)  # 40; 120 would make 160; 60 makes 100
    assert held_out(hashes, sizes, 0.1).tolist() == [False, False, True, False, True, False]


@given(SIZES, FRACTIONS, st.randoms())
def test_sides_do_not_depend_on_the_order_and_copies_stay_together(documents, fraction, random) -> None:  # type: ignore[no-untyped-def]
    def validating(rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
        hashes, sizes = np.array([row[0] for row in rows], np.uint64), np.array([row[1] for row in rows], np.int64)
        mask = held_out(hashes, sizes, fraction)
        assert not set(hashes[mask]) & set(hashes[~mask])
        assert sizes[mask].sum() <= max_fraction(fraction) * sizes.sum() < sizes.sum()
        return sorted(row for row, validates in zip(rows, mask, strict=True) if validates)

    held = validating(documents)
    random.shuffle(documents)
    assert validating(documents) == held


def test_the_fraction_holds_for_many_documents() -> None:
    found = scan(Piece(str(i), i, "here") for i in range(10_000))
    split = choose_split(found, 0.1)
    assert found.utf8_bytes[split.validation].sum() == pytest.approx(0.1 * found.utf8_bytes.sum(), abs=4)
    assert not split.cut.any()


def test_half_as_much_again_is_the_most() -> None:
    assert [max_fraction(fraction) for fraction in (0.1, 0.5, 0.8)] == pytest.approx([0.15, 0.75, 0.9])


def test_the_longest_document_gives_up_its_tail_where_whole_ones_do_not_do() -> None:
    found = scan(as_pieces([["note"], ["x" * 50, "y" * 45], ["\n"], [f" {'x' * 50}{'y' * 45}"]]))
    split = choose_split(found, 0.1)  # 4 of 195 bytes
    assert split.train.tolist() == [False, True, False, True]
    assert split.validation.tolist() == [True, True, False, False]  # the tail of the first copy
    assert split.cut.tolist() == [False, True, False, True]
    assert split.cut_at == int(96 * (1 - (19.5 - 4) / 191))


def test_documents_of_one_character_are_not_cut() -> None:
    assert not choose_split(scan(as_pieces([["a"], ["b"]])), 0.1).validation.any()
    assert choose_split(scan(as_pieces([["a"], ["b"]])), 0.5).validation.sum() == 1


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, unique=True), FRACTIONS)
def test_a_name_validates_when_its_hash_falls_below_the_fraction(numbers: list[int], fraction: float) -> None:
    hashes = np.array(numbers * 2, np.uint64)
    mask = hashes_below(hashes, fraction)
    assert mask[: len(numbers)].tolist() == mask[len(numbers) :].tolist()
    expected = [number < fraction * 2**64 for number in numbers]
    if any(expected) and not all(expected):
        assert mask[: len(numbers)].tolist() == expected
    else:
        assert mask.sum() in (2, 2 * len(numbers) - 2)
        assert hashes[mask].max() < hashes[~mask].min()


@given(st.lists(st.sampled_from(["a", "b c", "\u00e9\r\n", "\r\n", "\n", " ", "\u3000"])), st.data())
def test_head_and_tail_join_to_the_document(parts: list[str], data: st.DataObject) -> None:
    whole = "".join(parts)
    normal = whole.replace("\r\n", "\n").strip()
    at = data.draw(st.integers(1, max(1, len(normal) - 1)))
    documents = as_pieces([parts, ["whole"], ["held"], ["blank"], parts])
    train, validation, cut = (np.isin(range(5), numbers) for numbers in ([0, 1, 4], [0, 2], [0, 4]))
    found = list(divide(documents, Split(train, validation, cut, cut_at=at)))
    copy = [(side, piece.text) for side, piece in found if piece.document == 4]
    assert copy == [(TRAIN, piece.text) for side, piece in found if (side, piece.document) == (TRAIN, 0)]
    assert [(side, piece) for side, piece in found if 0 < piece.document < 4] == [
        (TRAIN, Piece("whole", 1, "here")),
        (VALIDATION, Piece("held", 2, "here")),
    ]
    first, second = ([piece for number, piece in found if (number, piece.document) == (side, 0)] for side in (0, 1))
    before, after = ("".join(piece.text for piece in side) for side in (first, second))
    assert before + after == whole
    if len(normal) > 1:
        assert before.lstrip().replace("\r\n", "\n") == normal[:at]


def test_the_cut_is_that_of_nanogpt() -> None:
    assert cut_point(1_115_394 - 1, 0.1) == int(1_115_394 * 0.9) == 1_003_854  # a line end closes the file
    assert [cut_point(2, fraction) for fraction in (0.01, 0.5, 0.99)] == [1, 1, 1]


@pytest.mark.parametrize("validation", ["0", "1", "-0.1", "1.5", "nan", "inf", "0.0"])
def test_a_fraction_out_of_range(validation: str) -> None:
    with pytest.raises(UsageError, match="not between 0 and 1"):
        fraction_of(validation)


def test_what_is_no_number_is_a_file() -> None:
    assert fraction_of("0.25") == 0.25
    assert fraction_of("held-out.txt") is None
