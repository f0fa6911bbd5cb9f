"""The tasks by name, as far as plans and reports need to know of them without their libraries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multistep.core.values.plan import Plan
from multistep.errors import PlanError, nearest


@dataclass(frozen=True)
class Task:
    """`family` names the tasks that can follow each other in a plan, since they share backbone and tokenizer.

    `metric` decides unless the plan or the data says otherwise; `pipeline` is the name that model hubs know;
    `loss_unit` is what its loss is counted in, `presets` are the networks from nothing that a model may be named by.
    """

    name: str
    family: str
    metric: str
    pipeline: str
    loss_unit: str = "nats per token"
    presets: tuple[str, ...] = ()


OWN_MODEL = "own-model"  # lives in Python code, with its data

_TEXT = ("nanochat", "gpt2", "qwen3", "llama")
_IMAGES = ("cnn", "resnet-small", "resnet-18", "resnet-34", "resnet-50")
_SPEECH = ("deepspeech", "wavenet")
_ALL = (
    Task("text-generation", "text", "loss", "text-generation", presets=_TEXT),
    Task("preference", "text", "preference_accuracy", "text-generation", "nats per pair", _TEXT),
    Task(
        "text-classification", "language", "accuracy", "text-classification", "nats per example", ("bert", "bag", "cnn")
    ),
    Task("fill-mask", "language", "loss", "fill-mask", "nats per hidden token", ("bert",)),
    Task("image-classification", "images", "accuracy", "image-classification", "nats per example", _IMAGES),
    Task("speech-recognition", "speech", "wer", "automatic-speech-recognition", "nats per character", _SPEECH),
    Task(OWN_MODEL, "own", "loss", "other"),
)
TASKS: Mapping[str, Task] = {task.name: task for task in _ALL}
_BY_TASK: Mapping[str, str] = {  # what tasks are called elsewhere
    "'text-generation'": (
        "language-modeling causal-lm clm lm gpt llm text completion sft instruction-tuning chat conversational "
        "finetune fine-tuning question-answering summarization"
    ),
    "'text-classification'": "sentiment sentiment-analysis sequence-classification nli regression",
    "'text-classification' or 'image-classification'": "classification classify classifier",
    "'image-classification'": "image images vision images-classification",
    "'speech-recognition'": "asr speech speech-to-text stt transcription automatic-speech-recognition",
    "'fill-mask'": "mlm masked-lm masked-language-modeling",
    "'preference'": "dpo orpo rlhf reward preferences",
}
_ELSEWHERE = {name: told for told, names in _BY_TASK.items() for name in names.split()}
BUILT_IN = ("python-manual", "python-docstrings", "handwritten-digits", "spoken-words")  # data that needs no download
# The plans of `multistep demo`. In the last a small net soon knows its little text by heart, so that a change helps:
# with seeds 0 and 2 beyond doubt, with seed 1 not (docs/gallery.md).
DEMOS: Mapping[str, Mapping[str, object]] = {
    "text": {"task": "text-generation", "data": "python-manual", "budget": "180s"},
    "language": {"task": "text-classification", "data": "python-docstrings", "budget": "100s"},
    "image": {"task": "image-classification", "data": "handwritten-digits", "budget": "100s"},
    "speech": {"task": "speech-recognition", "data": "spoken-words", "budget": "100s"},
    "change": {
        "task": "text-generation",
        "data": {"source": "python-manual", "validation": 0.4, "test": 0.4},
        "model": "scratch",
        "budget": "40 epochs",
    },
}


def task_named(name: str) -> Task:
    """The task of that name. Raises PlanError that lists the allowed names."""
    if name not in TASKS:
        told = _ELSEWHERE.get(name)
        close = f" Did you mean {told}?" if told else nearest(name, TASKS)
        raise PlanError(f"unknown task '{name}'; allowed: {', '.join(TASKS)}.{close}")
    return TASKS[name]


def guarded_as(task: str) -> str | None:
    """The task as which what a phase must not forget is read and scored; None where a phase can have no guard.

    Weights have to mean the same before the phase and after it. A phase of text goes on with the whole model; that of a
    classification or of hidden words begins with a head of its own, that of images or speech with its own classes or
    letters, and of a user's own model nothing is known.
    """
    return "text-generation" if task_named(task).family == "text" else None


def family_of(plan: Plan) -> str:
    """The family of all the plan's phases. Raises PlanError if they have several."""
    names = [plan.phase(i).task or plan.task for i in range(plan.phase_count)]
    families = {task_named(name).family: name for name in names}
    if len(families) > 1:
        first, other = list(families.values())[:2]
        raise PlanError(f"a phase of {other} cannot go on from one of {first}: their models have nothing in common")
    return next(iter(families))
