"""The evaluations whose answers the model writes: GPT-2's summaries, translations and answers."""

from __future__ import annotations

from gptkit.evaluation.protocols import Evaluation
from gptkit.evaluation.rows.question_answering import COQA, NATURAL_QUESTIONS
from gptkit.evaluation.rows.summarization import CNN_DM
from gptkit.evaluation.rows.translation import WMT14_EN_FR, WMT14_FR_EN

GENERATED_ROWS: tuple[Evaluation, ...] = (CNN_DM, WMT14_EN_FR, WMT14_FR_EN, COQA, NATURAL_QUESTIONS)
