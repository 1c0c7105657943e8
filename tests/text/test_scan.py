from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gptkit.text.pieces import Piece
from gptkit.text.split import Scan, scan


def as_pieces(documents: list[list[str]]) -> list[Piece]:
    return [Piece(text, number, f"row {number}") for number, parts in enumerate(documents) for text in parts]


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def test_scan_by_hand() -> None:
    found = scan(as_pieces([["caf", "\u00e9"], [" ", "\n"], ["b"]]))
    digests = [hashlib.sha256(text.encode()).digest() for text in ("caf\u00e9", "b")]
    assert found.sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    assert found.hashes[0] == hash_of("caf\u00e9")
    assert found.utf8_bytes.tolist() == [5, 2, 1]
    assert found.blank.tolist() == [False, True, False]
    assert (found.longest.hash, found.longest.characters, found.longest.source) == (hash_of("caf\u00e9"), 4, "row 0")


def test_near_copies_have_one_hash_and_their_own_sizes() -> None:
    copies = [["a\r\n\r\nb\r"], ["\u3000a\r", "\n\n", "b"], ["a", "\n", "\n", "b", "\n", " "], ["\n", "\ta\n\nb"]]
    found = scan(as_pieces([*copies, ["a\nb"]]))
    assert found.hashes.tolist() == [hash_of("a\n\nb")] * 4 + [hash_of("a\nb")]
    assert found.utf8_bytes.tolist() == [7, 8, 6, 6, 3]
    assert found.longest.characters == 4


@given(st.lists(st.text("ab \r\n\u00e9\u3000"), min_size=1, max_size=5))
def test_the_hash_is_that_of_the_normal_form_however_the_text_is_cut(parts: list[str]) -> None:
    normal = "".join(parts).replace("\r\n", "\n").replace("\r", "\n").strip()
    found = scan(as_pieces([parts]))
    assert found.hashes.tolist() == [hash_of(normal)]
    assert found.longest.characters == len(normal)
    assert found.blank.tolist() == [not normal]


@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=3), max_size=5))
def test_the_sha256_tells_boundaries_of_documents_but_not_of_pieces(documents: list[list[str]]) -> None:
    whole = scan(as_pieces([["".join(parts)] for parts in documents]))
    assert scan(as_pieces(documents)).sha256 == whole.sha256
    kept = ["".join(parts) for parts in documents if "".join(parts).strip()]
    assert (scan(as_pieces([kept] if kept else [])).sha256 == whole.sha256) == (len(kept) < 2)


@given(st.permutations(["aa", "bb", "b", " aa", ""]))
def test_the_longest_document_does_not_depend_on_the_order(texts: list[str]) -> None:
    found: Scan = scan(as_pieces([[text] for text in texts]))
    assert (found.longest.characters, found.longest.hash) == (2, min(hash_of("aa"), hash_of("bb")))
