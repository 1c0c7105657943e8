"""The four formats against token lists written by hand, and what cutting promises of any example."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.tasks.encoding import Formatted, Markers, format_example
from gptkit.tasks.task import FORMAT_FIELDS

S, D, E = 100, 101, 102
MARKERS = Markers(start=S, delimiter=D, extract=E)
MARKERS_IN = {"classification": 2, "entailment": 3, "similarity": 3, "multiple-choice": 3}

IDS = st.lists(st.integers(0, 99), max_size=30)
CHOICES = st.lists(IDS, min_size=1, max_size=5)
FIELDS = {
    "classification": st.tuples(IDS),
    "entailment": st.tuples(IDS, IDS),
    "similarity": st.tuples(IDS, IDS),
    "multiple-choice": st.tuples(IDS, IDS, CHOICES),
}
EXAMPLES = st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), FIELDS[name]))


@pytest.mark.parametrize(
    ("limit", "sequence", "truncated"),
    [(5, [S, 1, 2, 3, E], ()), (4, [S, 1, 2, E], ("text",)), (3, [S, 1, E], ("text",))],
)
def test_classification_by_hand(limit: int, sequence: list[int], truncated: tuple[str, ...]) -> None:
    assert format_example("classification", ([1, 2, 3],), MARKERS, limit) == Formatted((sequence,), truncated)


@pytest.mark.parametrize(
    ("limit", "sequence", "truncated"),
    [
        (9, [S, 1, 2, 3, 4, D, 7, 8, E], ()),
        (8, [S, 1, 2, 3, D, 7, 8, E], ("premise",)),
        (7, [S, 1, 2, D, 7, 8, E], ("premise",)),
        (6, [S, 1, D, 7, E], ("premise", "hypothesis")),  # an equal share each: one place is left over
        (5, [S, 1, D, 7, E], ("premise", "hypothesis")),
    ],
)
def test_entailment_by_hand(limit: int, sequence: list[int], truncated: tuple[str, ...]) -> None:
    assert format_example("entailment", ([1, 2, 3, 4], [7, 8]), MARKERS, limit) == Formatted((sequence,), truncated)


@pytest.mark.parametrize(
    ("limit", "sequences", "truncated"),
    [
        (7, ([S, 1, 2, 3, D, 7, E], [S, 7, D, 1, 2, 3, E]), ()),
        (6, ([S, 1, 2, D, 7, E], [S, 7, D, 1, 2, E]), ("first",)),
    ],
)
def test_similarity_by_hand(limit: int, sequences: tuple[list[int], ...], truncated: tuple[str, ...]) -> None:
    assert format_example("similarity", ([1, 2, 3], [7]), MARKERS, limit) == Formatted(sequences, truncated)


@pytest.mark.parametrize(
    ("question", "limit", "sequences", "truncated"),
    [
        ([5], 10, ([S, 1, 2, 3, 5, D, 7, E], [S, 1, 2, 3, 5, D, 8, 8, 8, E]), ()),
        ([], 9, ([S, 1, 2, 3, D, 7, E], [S, 1, 2, 3, D, 8, 8, 8, E]), ()),
        ([5], 8, ([S, 1, 2, 5, D, 7, E], [S, 1, 2, 5, D, 8, 8, E]), ("context", "choices")),
        ([], 7, ([S, 1, 2, D, 7, E], [S, 1, 2, D, 8, 8, E]), ("context", "choices")),
    ],
)
def test_multiple_choice_by_hand(
    question: list[int], limit: int, sequences: tuple[list[int], ...], truncated: tuple[str, ...]
) -> None:
    fields = ([1, 2, 3], question, [[7], [8, 8, 8]])
    assert format_example("multiple-choice", fields, MARKERS, limit) == Formatted(sequences, truncated)


def test_empty_texts_leave_the_markers() -> None:
    assert format_example("classification", ([],), MARKERS, 3).sequences == ([S, E],)
    assert format_example("entailment", ([], [1]), MARKERS, 5).sequences == ([S, D, 1, E],)


@pytest.mark.parametrize("task_format", FORMAT_FIELDS)
def test_a_limit_without_a_token_for_each_field_is_refused(task_format: str) -> None:
    fields: list[Any] = [[[3]] if name == "choices" else [1] for name in FORMAT_FIELDS[task_format]]
    least = MARKERS_IN[task_format] + len(fields)
    assert len(format_example(task_format, fields, MARKERS, least).sequences[0]) == least
    with pytest.raises(ValueError, match=f"no room for {FORMAT_FIELDS[task_format][0]}"):
        format_example(task_format, fields, MARKERS, least - 1)


@given(EXAMPLES, st.integers(6, 100))
def test_every_field_keeps_its_head_up_to_the_largest_share_that_fits(example: tuple[str, Any], limit: int) -> None:
    """The sequences are those of the fields cut at c, for the largest c whose sequences all fit: found by trying."""
    task_format, fields = example
    shares = range(1, max(map(longest, fields)) + 1)
    cut = [sequences(task_format, [head(field, share) for field in fields]) for share in shares]
    fitting = [one for one in cut if max(map(len, one)) <= limit]
    formatted = format_example(task_format, fields, MARKERS, limit)
    assert formatted.sequences == (fitting[-1] if fitting else sequences(task_format, fields))
    kept = len(fitting) if fitting else 0
    assert formatted.truncated == tuple(
        name for name, field in zip(FORMAT_FIELDS[task_format], fields, strict=True) if longest(field) > kept
    )


def sequences(task_format: str, fields: Any) -> tuple[list[int], ...]:
    """The formats once more, for texts that fit."""
    if task_format == "classification":
        return ([S, *fields[0], E],)
    if task_format == "multiple-choice":
        return tuple([S, *fields[0], *fields[1], D, *choice, E] for choice in fields[2])
    pair = [S, *fields[0], D, *fields[1], E]
    return (pair,) if task_format == "entailment" else (pair, [S, *fields[1], D, *fields[0], E])


def is_choices(field: Any) -> bool:
    return bool(field) and isinstance(field[0], list)


def longest(field: Any) -> int:
    return max(map(len, field)) if is_choices(field) else len(field)


def head(field: Any, share: int) -> Any:
    return [choice[:share] for choice in field] if is_choices(field) else field[:share]


@given(EXAMPLES, st.integers(6, 100))
def test_markers_stand_where_they_belong_and_the_limit_holds(example: tuple[str, Any], limit: int) -> None:
    task_format, fields = example
    formatted = format_example(task_format, fields, MARKERS, limit)
    for sequence in formatted.sequences:
        assert len(sequence) <= limit
        assert (sequence[0], sequence[-1]) == (S, E)
        assert [sequence.count(marker) for marker in (S, D, E)] == [1, int(task_format != "classification"), 1]


@given(IDS, IDS, st.integers(5, 70))
def test_similarity_of_a_swapped_pair_has_the_same_sequences_swapped(
    first: list[int], second: list[int], limit: int
) -> None:
    there, back = (format_example("similarity", pair, MARKERS, limit) for pair in ((first, second), (second, first)))
    assert there.sequences == back.sequences[::-1]


@given(IDS, IDS, CHOICES, st.integers(6, 100))
def test_all_choices_follow_the_same_tokens(
    context: list[int], question: list[int], choices: list[list[int]], limit: int
) -> None:
    formatted = format_example("multiple-choice", (context, question, choices), MARKERS, limit)
    before = {tuple(sequence[: sequence.index(D)]) for sequence in formatted.sequences}
    assert len(before) == 1
