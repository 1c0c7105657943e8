"""The evaluations whose answers the model writes: GPT-2's summaries, translations and answers."""

from __future__ import annotations

from gptkit.scoring.protocols import Evaluation
from gptkit.tasks.cnn_dailymail import CNN_DM
from gptkit.tasks.question_answering import COQA, NATURAL_QUESTIONS
from gptkit.tasks.wmt14 import WMT14_EN_FR, WMT14_FR_EN

GENERATED_ROWS: tuple[Evaluation, ...] = (CNN_DM, WMT14_EN_FR, WMT14_FR_EN, COQA, NATURAL_QUESTIONS)
