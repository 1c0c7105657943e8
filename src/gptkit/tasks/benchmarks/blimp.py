"""BLiMP: is the acceptable sentence of a minimal pair more likely than the other? All 67 sets, or one of them.

Reads the authors' 67 files of minimal pairs (data/ in their repository). Phenomena are the paper's twelve: what the
files call s-selection is part of argument structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

from gptkit.errors import InputError, UsageError
from gptkit.scoring.choices import ChoiceProtocol, Pair
from gptkit.scoring.protocols import Published
from gptkit.tasks.files import find, not_found, open_table, require_folder, roots, text_cells
from gptkit.tasks.task import Evaluation, Loaded, loaded
from gptkit.text.examples import Example

ONE_SET = "blimp-"  # prefix of a set's name: the evaluation of only that set
_SETS = {
    "anaphor_agreement": "anaphor_gender_agreement anaphor_number_agreement",
    "argument_structure": """
        animate_subject_passive animate_subject_trans causative drop_argument inchoative intransitive passive_1
        passive_2 transitive
    """,
    "binding": """
        principle_A_c_command principle_A_case_1 principle_A_case_2 principle_A_domain_1 principle_A_domain_2
        principle_A_domain_3 principle_A_reconstruction
    """,
    "control_raising": """
        existential_there_object_raising existential_there_subject_raising expletive_it_object_raising
        tough_vs_raising_1 tough_vs_raising_2
    """,
    "determiner_noun_agreement": """
        determiner_noun_agreement_1 determiner_noun_agreement_2 determiner_noun_agreement_irregular_1
        determiner_noun_agreement_irregular_2 determiner_noun_agreement_with_adj_2
        determiner_noun_agreement_with_adj_irregular_1 determiner_noun_agreement_with_adj_irregular_2
        determiner_noun_agreement_with_adjective_1
    """,
    "ellipsis": "ellipsis_n_bar_1 ellipsis_n_bar_2",
    "filler_gap_dependency": """
        wh_questions_object_gap wh_questions_subject_gap wh_questions_subject_gap_long_distance
        wh_vs_that_no_gap wh_vs_that_no_gap_long_distance wh_vs_that_with_gap wh_vs_that_with_gap_long_distance
    """,
    "irregular_forms": "irregular_past_participle_adjectives irregular_past_participle_verbs",
    "island_effects": """
        adjunct_island complex_NP_island coordinate_structure_constraint_complex_left_branch
        coordinate_structure_constraint_object_extraction left_branch_island_echo_question
        left_branch_island_simple_question sentential_subject_island wh_island
    """,
    "npi_licensing": """
        matrix_question_npi_licensor_present npi_present_1 npi_present_2 only_npi_licensor_present
        only_npi_scope sentential_negation_npi_licensor_present sentential_negation_npi_scope
    """,
    "quantifiers": """
        existential_there_quantifiers_1 existential_there_quantifiers_2 superlative_quantifiers_1
        superlative_quantifiers_2
    """,
    "subject_verb_agreement": """
        distractor_agreement_relational_noun distractor_agreement_relative_clause
        irregular_plural_subject_verb_agreement_1 irregular_plural_subject_verb_agreement_2
        regular_plural_subject_verb_agreement_1 regular_plural_subject_verb_agreement_2
    """,
}
PHENOMENON_OF = {name: phenomenon for phenomenon, names in _SETS.items() for name in names.split()}
_SOURCE = "BLiMP paper, table 3 as corrected in its repository"
_FIGURES = {"GPT-2 762M": 0.830, "Transformer-XL": 0.696, "LSTM": 0.698, "5-gram": 0.612}
_PUBLISHED = tuple(Published(model, "accuracy", value, _SOURCE) for model, value in _FIGURES.items())


def blimp(data: str | None, *, only: str | None = None) -> Loaded:
    """Return the pairs of the sets in a folder: fields = (set, (acceptable, unacceptable)), label = 0.

    Sets are interleaved: the first pair of each, then the second of each. `only` selects one set. A note reports
    missing sets. UsageError without DATA; InputError if there is no set, or for a bad file.
    """
    wanted = [only] if only else list(PHENOMENON_OF)
    files = f"{wanted[0]}.jsonl" + f" and {len(wanted) - 1} more" * (len(wanted) > 1)
    if data is None:
        fix = f"pass --data DIR, a folder with {files} (github.com/alexwarstadt/blimp, data/)"
        raise UsageError(f"{'blimp' if only is None else ONE_SET + only} needs its data", where="--data", fix=fix)
    folder = Path(data).expanduser()
    require_folder(folder, f"the folder with {files}; --task blimp-NAME evaluates only the set NAME")
    paths: dict[str, Path] = {}
    for place in (root / inner for root in roots(folder, ("blimp",)) for inner in ("", "data")):
        paths = paths or {name: path for name in wanted if (path := find(place, f"{name}.jsonl")) is not None}
    if not paths:
        raise not_found("no BLiMP file", folder, files, "blimp")
    examples = [[_pair(name, row, at) for at, row in open_table(path, "jsonl").rows] for name, path in paths.items()]
    in_turns = [pair for pair in chain.from_iterable(zip_longest(*examples)) if pair is not None]
    missing = [name for name in wanted if name not in paths]
    named = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
    note = f"{len(missing)} of BLiMP's 67 sets are missing, so the mean is not comparable to published ones: {named}"
    return loaded(in_turns, [note] if missing else [])


def _pair(name: str, row: dict[str, object], where: str) -> Example:
    found, *sentences = text_cells(row, where, "UID", "sentence_good", "sentence_bad")
    if found != name:
        fix = f"keep only pairs of the set {name} in {name}.jsonl"
        raise InputError(f"the UID is {found!r}, not {name!r}", where=where, fix=fix)
    return Example((name, tuple(sentences)), 0, where, f"{name} {row.get('pairID', where.rpartition(':')[2])}")


def sentence_pairs(example: Example) -> list[Pair]:
    return [("", sentence) for sentence in example.fields[1]]


def harness_pairs(example: Example) -> list[Pair]:
    """Return both sentences after a space, which lm-eval puts between the (empty) context and each choice."""
    return [("", f" {sentence}") for sentence in example.fields[1]]


def _groups(examples: Sequence[Example]) -> Mapping[str, tuple[str, ...]]:
    sets = tuple(str(example.fields[0]) for example in examples)
    return {"phenomenon": tuple(PHENOMENON_OF[name] for name in sets), "set": sets}


_SUM = ChoiceProtocol(
    "sum",
    "the sentence's log-probability after the document separator; a tie is wrong (7 pairs are identical)",
    published=_PUBLISHED,
    pairs=sentence_pairs,
    groups=_groups,
)
_HARNESS = ChoiceProtocol(
    "harness",
    "the same with a space before the sentence, and a tie is right, as in lm-eval's blimp",
    pairs=harness_pairs,
    ties="first",
    groups=_groups,
)
_PSEUDO = replace(
    _SUM,
    name="pseudo-log-likelihood",
    about="the sentence's pseudo-log-likelihood after the document separator (Salazar et al. 2020): the sum of "
    "each token's log-probability given all others, from a copy in which it is masked; a tie is wrong",
    published=(),
    masked=True,
)
_PROTOCOLS = (_SUM, _HARNESS, _PSEUDO)
BLIMP = Evaluation(
    "blimp", blimp, _PROTOCOLS, texts=lambda example: tuple(example.fields[1]), fields=("set", "sentence")
)


def blimp_set(name: str) -> Evaluation:
    """Return the evaluation of one set, named blimp-<set>."""
    return replace(
        BLIMP,
        name=ONE_SET + name,
        load=partial(blimp, only=name),
        protocols=tuple(replace(each, published=(), groups=None) for each in _PROTOCOLS),
    )


BENCHMARKS = (BLIMP,)
