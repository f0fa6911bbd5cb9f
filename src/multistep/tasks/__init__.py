"""The domains. Each is imported when it is asked for, since each brings seconds of imports."""

from __future__ import annotations

from multistep.core.metric import Evaluation
from multistep.engine.learner import Workshop
from multistep.errors import PlanError


def workshop_for(task: str) -> Workshop:
    """What opens the phases of that task's plans. Raises PlanError for an unknown task."""
    if task == "text-generation":
        from multistep.tasks.text.task import TextWorkshop

        return TextWorkshop()
    raise PlanError(f"unknown task '{task}'")


def evaluate_model(model: str, data: str, *, text_column: str | None = None) -> Evaluation:
    """Score a model folder on data that it was not trained on."""
    from multistep.tasks.text.use import evaluate_model as evaluate_text

    return evaluate_text(model, data, text_column=text_column)


def generate_text(model: str, prompt: str, *, tokens: int, temperature: float, seed: int) -> str:
    """Write text with a model folder."""
    from multistep.tasks.text.use import generate_text as generate

    return generate(model, prompt, tokens=tokens, temperature=temperature, seed=seed)
