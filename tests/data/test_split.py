from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.data.pieces import Piece
from gptkit.data.split import cut_point, fraction_of, head, held_out, scan, tail
from gptkit.errors import UsageError


def as_pieces(documents: list[list[str]]) -> list[Piece]:
    return [Piece(text, number, "here") for number, parts in enumerate(documents) for text in parts]


def test_scan_by_hand() -> None:
    found = scan(as_pieces([["caf", "\u00e9"], [" ", "\n"], ["b"]]))
    digests = [hashlib.sha256(text.encode()).digest() for text in ("caf\u00e9", "b")]
    assert found.sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    assert found.hashes[0] == int.from_bytes(digests[0][:8], "big")
    assert found.utf8_bytes.tolist() == [5, 2, 1]
    assert found.blank.tolist() == [False, True, False]
    assert found.first_characters == 4


@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=3), max_size=5))
def test_the_hash_tells_boundaries_of_documents_but_not_of_pieces(documents: list[list[str]]) -> None:
    whole = scan(as_pieces([["".join(parts)] for parts in documents]))
    assert scan(as_pieces(documents)).sha256 == whole.sha256
    kept = ["".join(parts) for parts in documents if "".join(parts).strip()]
    assert (scan(as_pieces([kept] if kept else [])).sha256 == whole.sha256) == (len(kept) < 2)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, unique=True), st.floats(0.001, 0.999))
def test_a_document_validates_when_its_hash_falls_below_the_fraction(numbers: list[int], fraction: float) -> None:
    hashes = np.array(numbers * 2, np.uint64)
    mask = held_out(hashes, fraction)
    assert mask[: len(numbers)].tolist() == mask[len(numbers) :].tolist()
    below = [number < fraction * 2**64 for number in numbers]
    if any(below) and not all(below):
        assert mask[: len(numbers)].tolist() == below
    else:
        assert mask.sum() in (2, 2 * len(numbers) - 2)
        assert hashes[mask].max() < hashes[~mask].min()


def test_the_fraction_holds_for_many_documents() -> None:
    hashes = scan(Piece(str(i), i, "here") for i in range(10_000)).hashes
    assert 0.09 < held_out(hashes, 0.1).mean() < 0.11


@given(st.lists(st.text(max_size=4), min_size=1), st.data())
def test_head_and_tail_join_to_the_document(parts: list[str], data: st.DataObject) -> None:
    whole = "".join(parts)
    at = data.draw(st.integers(0, len(whole)))
    assert "".join(piece.text for piece in head(as_pieces([parts]), at)) == whole[:at]
    assert "".join(piece.text for piece in tail(as_pieces([parts]), at)) == whole[at:]


def test_the_cut_is_that_of_nanogpt() -> None:
    assert cut_point(1_115_394, 0.1) == int(1_115_394 * 0.9) == 1_003_854


@pytest.mark.parametrize("validation", ["0", "1", "-0.1", "1.5", "nan", "inf", "0.0"])
def test_a_fraction_out_of_range(validation: str) -> None:
    with pytest.raises(UsageError, match="not between 0 and 1"):
        fraction_of(validation)


def test_what_is_no_number_is_a_file() -> None:
    assert fraction_of("0.25") == 0.25
    assert fraction_of("held-out.txt") is None
