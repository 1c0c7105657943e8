"""The rows of evaluations whose numbers come from comparing log-probabilities of texts."""

from __future__ import annotations

from gptkit.scoring.protocols import Evaluation
from gptkit.tasks.acceptability import COLA
from gptkit.tasks.blimp import BLIMP, blimp_set
from gptkit.tasks.cbt import CBT_ROWS
from gptkit.tasks.hellaswag import HELLASWAG
from gptkit.tasks.lambada import LAMBADA
from gptkit.tasks.task_choices import TASK_CHOICE_ROWS
from gptkit.tasks.winograd import WINOGRAD

__all__ = ["CHOICE_ROWS", "blimp_set"]

CHOICE_ROWS: tuple[Evaluation, ...] = (LAMBADA, *CBT_ROWS, WINOGRAD, HELLASWAG, BLIMP, *TASK_CHOICE_ROWS, COLA)
