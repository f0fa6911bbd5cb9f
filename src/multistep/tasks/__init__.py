"""The domains. Each is imported when it is asked for, since each brings seconds of imports."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.tasks import TASKS, family_of
from multistep.engine.learner import Workshop
from multistep.errors import DataError, PlanError
from multistep.tasks.baselines import is_baseline
from multistep.tasks.folders import existing, read_task, task_of
from multistep.tasks.notes import say
from multistep.tasks.prediction import Asked
from multistep.tasks.reach import Named, within_reach

if TYPE_CHECKING:
    from multistep.data.form import Form
    from multistep.tasks.predicting import OnProgress, PredictedFile, Show


def workshop_for(plan: Plan) -> Workshop:
    """What opens the phases of the plan. Raises PlanError for tasks that cannot follow each other."""
    family = family_of(plan)
    if family == "text":
        from multistep.tasks.writing.workshop import TextWorkshop

        return TextWorkshop()
    if family == "language":
        from multistep.tasks.language.task import LanguageWorkshop

        return LanguageWorkshop()
    if family == "images":
        from multistep.tasks.images.task import ImageWorkshop

        return ImageWorkshop()
    if family == "speech":
        from multistep.tasks.speech.task import SpeechWorkshop

        return SpeechWorkshop()
    if family == "own":
        raise PlanError(
            f"{plan.task}: the model and the data of such a run live in Python code; call multistep.train(model=..., "
            "loss=..., train=..., out=RUN) there: the same call again goes on with the run"
        )
    raise PlanError(f"{plan.task}: not built yet")


def own_model_room(folder: str | Path) -> Any:
    """What uses a model folder of a user's own: `load`, `outputs`, `predict` and `evaluate` of its framework."""
    if read_task(str(folder)).get("framework") == "keras":
        from multistep.tasks.keras import asked as of_keras

        return of_keras
    from multistep.tasks.own import asked

    return asked


def evaluate_model(model: str, data: DataSpec, metrics: Sequence[str] = ()) -> Evaluation:
    """Score a model folder on data that it was not trained on, by the task that the model is for.

    `metrics` are asked for by name: those of answers need some to be written, which else is done where the run was
    judged by them.
    """
    model = _in_use(model)
    family = TASKS[task_of(model)].family
    data = _read_alike(model, data, family)
    if family == "text":
        from multistep.tasks.chat.load import holds_conversations
        from multistep.tasks.preference.load import holds_pairs

        if data.text_column is None and holds_pairs(data):
            raise DataError(
                f"{data}: pairs of answers are scored against the weights that a phase began with, which a model "
                "folder does not hold; the run's report has the scores. Give text or conversations"
            )
        if holds_conversations(data):
            from multistep.tasks.chat import use as chat

            return chat.evaluate_model(model, data, metrics)
        from multistep.tasks.text import use as text

        return text.evaluate_model(model, data)
    if family == "language":
        from multistep.tasks.language import use as language

        return language.evaluate_model(model, data)
    if family == "images":
        from multistep.tasks.images import use as images

        return images.evaluate_model(model, data)
    if family == "speech":
        from multistep.tasks.speech import use as speech

        return speech.evaluate_model(model, data)
    raise PlanError(f"{model}: a model for {task_of(model)} cannot be scored here")


def scored_split(model: str, data: DataSpec) -> str | None:
    """Which split of texts or labelled rows `evaluate_model` scores; None where the data name none."""
    from multistep.data.splits import held_out_split

    model = existing(model)  # `evaluate_model` has said what is in use
    family = TASKS[task_of(model)].family
    if family not in ("text", "language"):
        return None
    return held_out_split(_read_alike(model, data, family), _form_of(family))


def _read_alike(model: str, data: DataSpec, family: str) -> DataSpec:
    """The data read as the model's training data were, where their own files do not say how."""
    from multistep.data.peek import first_columns
    from multistep.tasks.as_trained import read_alike

    return read_alike(data, model, partial(first_columns, form=_form_of(family)))


def _form_of(family: str) -> Form:
    if family == "text":
        from multistep.tasks.text.files import FORM as TEXTS

        return TEXTS
    if family == "images":
        from multistep.tasks.images.files import FORM as IMAGES

        return IMAGES
    if family == "speech":
        from multistep.tasks.speech.files import FORM as SOUNDS

        return SOUNDS
    from multistep.tasks.language.rows import FORM as LABELLED

    return LABELLED


def predict(model: str, inputs: Any, asked: Asked, data: DataSpec) -> Any:
    """What a model folder says of inputs, files or rows. Raises PlanError or DataError."""
    from multistep.tasks import predicting

    model = _in_use(model)
    with within_reach([Named(model, "model")]):
        return predicting.predict(model, inputs, asked, data)


def predict_file(
    model: str,
    inputs: Sequence[Any],
    output: str | None,
    data: DataSpec,
    asked: Asked,
    on_progress: OnProgress,
    show: Show | None = None,
) -> PredictedFile:
    """What a model folder says of each row of tables, folders and inputs. Raises PlanError or DataError."""
    from multistep.tasks import predicting

    model = _in_use(model)
    with within_reach([Named(model, "model")]):
        return predicting.predict_file(model, inputs, output, data, asked, on_progress, show)


def serve(model: str, *, host: str, port: int, tokens: int, threshold: float | None, limit_mb: float) -> None:
    """Answer requests over HTTP until Ctrl-C. Raises PlanError where a package is missing, or the port is taken."""
    try:
        from multistep.tasks.serving import app
    except ImportError as error:
        raise PlanError(f'serving needs FastAPI and uvicorn ({error}); pip install "multistep[serve]"') from None
    from multistep.tasks.serving.service import Service

    service = Service(_in_use(model), tokens=tokens, threshold=threshold)
    app.run(service, host, port, most_bytes=round(limit_mb * 1e6))


def _in_use(model: str) -> str:
    """The folder that is meant; says so where a run's is that of its baseline."""
    found = existing(model)
    if found != model and is_baseline(found):
        say([f"{model}: this run ships its baseline, which is used here; the network is {Path(model) / 'model'}"])
    return found


def generate_text(model: str, prompt: str, *, tokens: int, temperature: float, seed: int) -> str:
    """The prompt and what follows it; of a model that was trained on conversations its answer alone, which is told.

    Raises PlanError for a model that writes nothing.
    """
    with within_reach([Named(existing(model), "model")]):
        from multistep.tasks.chat.talk import load_writer
        from multistep.tasks.text.use import continue_text

        writer = load_writer(model)
    if not writer.chats:
        module, tokenizer = writer.model, writer.tokenizer
        return continue_text(tokenizer, module, prompt, tokens=tokens, temperature=temperature, seed=seed)
    said = "trained on conversations; the prompt is put into its chat template, and this is the answer to it"
    say([f"{model}: {said}"])
    turn = {"role": "user", "content": prompt}
    return writer.answer([[turn]], tokens=tokens, temperature=temperature, seed=seed)[0]
