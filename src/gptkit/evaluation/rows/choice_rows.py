"""The rows of evaluations whose numbers come from comparing log-probabilities of texts."""

from __future__ import annotations

from gptkit.evaluation.protocols import Evaluation
from gptkit.evaluation.rows.acceptability import COLA
from gptkit.evaluation.rows.blimp import BLIMP, blimp_set
from gptkit.evaluation.rows.cbt import CBT_ROWS
from gptkit.evaluation.rows.hellaswag import HELLASWAG
from gptkit.evaluation.rows.lambada import LAMBADA
from gptkit.evaluation.rows.task_choices import TASK_CHOICE_ROWS
from gptkit.evaluation.rows.winograd import WINOGRAD

__all__ = ["CHOICE_ROWS", "blimp_set"]

CHOICE_ROWS: tuple[Evaluation, ...] = (LAMBADA, *CBT_ROWS, WINOGRAD, HELLASWAG, BLIMP, *TASK_CHOICE_ROWS, COLA)
