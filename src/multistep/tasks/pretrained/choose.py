"""What `model: auto` comes to: the listed model for the task, the data and the time; or none, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multistep.tasks.notes import say
from multistep.tasks.pretrained.listed import Kind, Listed, listed_as, listed_for
from multistep.tasks.pretrained.where import FOLDERS, Hub, hub_id, local
from multistep.tasks.reach import why_offline

LEAST_EXAMPLES = 1_000  # that fine-tuning must be able to read within its share of the time, or all there are
LARGER_EXAMPLES = (10_000, 50_000)  # at least and at most, and else two epochs: before a larger model is preferred
TRAINED_SHARE = 0.6  # of the budget, that training is counted on for
DOWNLOAD_SHARE = 0.3  # of the budget, that a download may take
DOWNLOAD_SECONDS = 900.0  # where the budget is not told in time
LEAST_SECONDS = 40.0  # of a budget: below, loading a model takes what training it needs
PER_PARAMETER_AND_TOKEN = 6.0  # operations: arXiv 2001.08361


@dataclass(frozen=True)
class Need:
    """What a run has to offer a model. `tokens` are those of an example on average, `seconds` the plan's time (None: it
    is not told in time), `operations` what the device does a second, about.
    """

    task: str
    kind: Kind
    examples: int
    tokens: float
    seconds: float | None
    operations: float
    chat: bool = False
    least_examples: int = LEAST_EXAMPLES

    def readable(self, model: Listed) -> float:
        """About how many examples a model can be trained on in the time."""
        if self.seconds is None:
            return float("inf")
        per_example = PER_PARAMETER_AND_TOKEN * model.active * (model.tokens or self.tokens)
        return TRAINED_SHARE * self.seconds * self.operations / per_example


@dataclass(frozen=True)
class Chosen:
    """Folder of the model that a run starts from, None: from nothing; and what the run's notes are to say of it."""

    source: str | None
    notes: tuple[str, ...]


def choose(need: Need) -> Chosen:
    """The best listed model that the time bears and that can be had. Says size and licence before it is loaded."""
    listed = listed_for(need.task, need.kind, chat=need.chat)
    if not listed:
        return Chosen(None, ())
    if need.seconds is not None and need.seconds < LEAST_SECONDS:
        return Chosen(None, (f"from nothing: {need.seconds:.0f}s are too few to load and tune a pretrained model",))
    borne, why_not = _borne(need, listed)
    if not borne:
        return Chosen(None, (why_not,))
    for model in borne:
        if folder := local(model.id):
            return _taken(model, str(folder), f"in {folder}" if hub_id(str(folder)) is None else "in the local cache")
    return _from_hub(need, borne[0])


def _borne(need: Need, listed: tuple[Listed, ...]) -> tuple[list[Listed], str]:
    """The models that the time bears, the best first; or why it bears none."""
    smallest = listed[-1]
    at_least, at_most = LARGER_EXAMPLES
    enough = min(at_most, max(at_least, 2 * need.examples))
    least = min(need.least_examples, need.examples)
    # Without a time nothing says that a larger one pays.
    larger = [] if need.seconds is None else [m for m in listed[:-1] if need.readable(m) >= enough]
    if need.readable(smallest) >= least:
        return [*larger, smallest], ""
    unit = "tokens of training" if need.task == "text-generation" else "training examples"
    return [], (
        f"from nothing: of {smallest.id}, the smallest listed for {need.task}, {need.seconds:.0f}s hold about "
        f"{need.readable(smallest):,.0f} {unit}, and tuning it takes {least:,}; `--model {smallest.id}` "
        "tries it all the same"
    )


def _taken(model: Listed, source: str, where: str) -> Chosen:
    note = f"starts from {described(model)}, {where}; `--model scratch` starts from nothing"
    say([note])
    return Chosen(source, (note,))


def _from_hub(need: Need, model: Listed) -> Chosen:
    if not (why_not := why_offline()):
        hub = Hub(model.id)
        if not (why_not := hub.why_not()):
            say([f"downloads {described(model)}, from the hub; `--model scratch` starts from nothing"])
            seconds = DOWNLOAD_SECONDS if need.seconds is None else DOWNLOAD_SHARE * need.seconds
            found = hub.download(seconds)
            if not isinstance(found, str):
                return _taken(model, str(found), "downloaded from the hub")
            why_not = found
    note = (
        f"from nothing: {described(model)}, would be a better start, but it is not on this machine and the hub cannot "
        f"be asked ({why_not}); `hf download {model.id}` gets it, or a folder in {FOLDERS} that holds it"
    )
    return Chosen(None, (note,))


def described(model: Listed) -> str:
    return f"{model.id} ({model.parameters / 1e6:.0f} million parameters, {model.megabytes} MB, {model.licence})"


def label_of(source: str, known: Iterable[str] = ()) -> str:
    """What a model folder or hub id is called where it is shown: its id, if it lies in the hub's cache."""
    found = hub_id(source)
    return found if found else source


def licence_of(source: str) -> str | None:
    """The licence of a listed model, by its id or its place in the cache."""
    model = listed_as(hub_id(source) or source)
    return model.licence if model else None
