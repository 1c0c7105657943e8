"""BLiMP as its authors distribute it: 67 files of minimal pairs in a folder (data/ of its repository).

Phenomena are the twelve of its paper, where what the files call s-selection is part of argument structure.
"""

from __future__ import annotations

from itertools import chain, zip_longest
from pathlib import Path

from gptkit.errors import InputError, UsageError
from gptkit.tasks.file_search import existing_folder, find, not_found, roots
from gptkit.tasks.forms import text_cell
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import open_table
from gptkit.text.examples import Example

_SETS = {
    "anaphor_agreement": """
        anaphor_gender_agreement anaphor_number_agreement
    """,
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
    "ellipsis": """
        ellipsis_n_bar_1 ellipsis_n_bar_2
    """,
    "filler_gap_dependency": """
        wh_questions_object_gap wh_questions_subject_gap wh_questions_subject_gap_long_distance
        wh_vs_that_no_gap wh_vs_that_no_gap_long_distance wh_vs_that_with_gap wh_vs_that_with_gap_long_distance
    """,
    "irregular_forms": """
        irregular_past_participle_adjectives irregular_past_participle_verbs
    """,
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


def blimp(data: str | None, *, only: str | None = None) -> Loaded:
    """Return the pairs of the sets that are there: fields = (set, (acceptable, unacceptable)), label = 0.

    The sets take turns: the first pair of each, then the second of each. `only` asks for one set. A note tells which
    sets are missing; UsageError without DATA, InputError without any set, or for a bad file.
    """
    wanted = [only] if only else list(PHENOMENON_OF)
    if data is None:
        fix = f"give --data DIR, a folder of {_shown(wanted)} (github.com/alexwarstadt/blimp, data/)"
        raise UsageError(f"{'blimp' if only is None else f'blimp-{only}'} needs its data", where="--data", fix=fix)
    if Path(data).expanduser().is_file():
        fix = "name the folder that it lies in; --task blimp-NAME asks for the set NAME alone"
        raise InputError("not a folder", where=f"--data {data}", fix=fix)
    paths = _paths(existing_folder(data), wanted)
    turns = zip_longest(*(_pairs(name, path) for name, path in paths.items()))
    examples = [one for one in chain.from_iterable(turns) if one is not None]
    missing = [name for name in wanted if name not in paths]
    named = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
    note = f"{len(missing)} of BLiMP's 67 sets are missing, so this mean is not BLiMP's: {named}"
    return loaded(examples, [note] if missing else [])


def _paths(folder: Path, wanted: list[str]) -> dict[str, Path]:
    """Return the files of the sets that lie together in the first place where there are any."""
    for root in roots(folder, ("blimp",)):
        for inner in ("", "data/"):
            paths = {name: path for name in wanted if (path := find(root, f"{inner}{name}.jsonl")) is not None}
            if paths:
                return paths
    raise not_found("no set of BLiMP", folder, _shown(wanted), "blimp")


def _shown(wanted: list[str]) -> str:
    return f"{wanted[0]}.jsonl" + f" and {len(wanted) - 1} more" * (len(wanted) > 1)


def _pairs(name: str, path: Path) -> list[Example]:
    return [_pair(name, row, where) for where, row in open_table(path, "jsonl").rows]


def _pair(name: str, row: dict[str, object], where: str) -> Example:
    if text_cell(row, "UID", where) != name:
        fix = f"the file {name}.jsonl holds the set {name} alone"
        raise InputError(f"the UID is {row['UID']!r}, not {name!r}", where=where, fix=fix)
    sentences = (text_cell(row, "sentence_good", where), text_cell(row, "sentence_bad", where))
    return Example((name, sentences), 0, where, f"{name} {row.get('pairID', where.rpartition(':')[2])}")
