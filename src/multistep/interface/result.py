"""What a finished run came to, as a value: its scores, its model, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.evidence.metric import Goal, Interval
from multistep.core.values.events import VerdictGiven
from multistep.core.values.tasks import OWN_MODEL
from multistep.errors import PlanError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn


@dataclass(frozen=True, repr=False)
class Result:
    """What a finished run came to. `record` is result.json as it stands in the run directory.

    `model` is the folder of what ships. `validation` and `test` are the network's scores; `baseline` has its own.
    """

    metric: str
    validation: Interval
    test: Interval | None
    baseline: Mapping[str, Any]
    model: Path
    folder: Path
    stopped: str
    verdicts: tuple[VerdictGiven, ...]
    record: Mapping[str, Any] = field(repr=False)

    @property
    def score(self) -> float:
        """The test score of what ships, or its validation score where there is no test split.

        As `predict` and `evaluate` say labels: at the run's threshold, where it has chosen one (`test` is at 0.5).
        """
        from multistep.report.outcome import used_of

        if used := used_of(self.record, "test" if self.test else "validation"):
            return used.score.score
        if self.ships == "baseline":
            return float(self.baseline["test" if self.test else "validation"]["score"])
        return (self.test or self.validation).score

    @property
    def ships(self) -> str:
        """`network`, or `baseline` where that leads on validation; `record["ships_because"]` says why."""
        return str(self.record.get("ships") or "network")

    @property
    def report(self) -> Path:
        """The run's report, a page for a browser."""
        return self.folder / "report.html"

    def predict(self, inputs: Any, *, tokens: int = 256, model: nn.Module | None = None) -> Any:
        """What the model that ships says of each input, as `multistep.predict`; a single input is a list of one.

        Args
            inputs: as of `multistep.predict`; of a module of your own what `train` took, with or without targets:
                tensors or arrays with a row an example, several as a tuple or by name as a dict, a DataFrame, a data
                set, a loader.
            tokens: the most that an answer to a prompt has.
            model: a module of the class that was trained, where that is not at hand: in another process.

        Returns
            A list of predictions with `output` and `probability`; of a module of your own classes and labels come so,
            and numbers as a tensor in the unit of the targets; of a DataFrame the frame with more columns.

        Raises
            PlanError: `model` where the run knows its own, or one that does not fit.
            DataError: inputs that cannot be read.
        """
        if model is not None and not self._is_own():
            raise PlanError(f"predict: the model is known, {self.model}; leave model= out")
        from multistep.interface.using import predict

        return predict(self.folder, inputs, tokens=tokens, module=model)

    def outputs(self, inputs: Any, *, model: nn.Module | None = None) -> Tensor:
        """The outputs of a module of your own with the trained weights, as they are, a row an input (on the CPU).

        Args
            inputs, model: as in `predict`.

        Returns
            A tensor with a row an input.

        Raises
            PlanError: the run trained no module of your own.
            DataError: inputs that cannot be read.
        """
        if not self._is_own():
            raise PlanError(f"outputs: the run in {self.folder} trained no module of your own; `predict` is for it")
        from multistep.tasks import own_model_room

        found: Tensor = own_model_room(self.model).outputs(self.model, inputs, model=model)
        return found

    def evaluate(
        self,
        data: Any,
        *,
        metric: Any = None,
        text_column: str | None = None,
        label_column: str | None = None,
        model: nn.Module | None = None,
        loss: Any = None,
        target: str | None = None,
        goal: Goal | None = None,
    ) -> dict[str, Any]:
        """The scores on other data of the model that ships, as `multistep.evaluate`.

        Args
            data: what `train` takes as such; of a module of your own what it takes for validation.
            metric: one metric, or several; of a module of your own also a function. Without it all that apply.
            text_column, label_column: guessed where that is obvious.
            model, loss, target, goal: as in `train`, where they are not at hand: in another process.

        Returns
            A dict, as of `multistep.evaluate`: `scores` has `score`, `low` and `high` of each metric.

        Raises
            PlanError: a metric that there is not or that cannot be measured here.
            DataError: data that cannot be read.
        """
        from multistep.interface.using import evaluate

        columns: dict[str, Any] = {"text_column": text_column, "label_column": label_column}
        code: dict[str, Any] = {"module": model, "loss": loss, "target": target, "goal": goal}
        return evaluate(self.folder, data, metric=metric, **columns, **code)

    def load(self, model: nn.Module | None = None) -> nn.Module:
        """Fill a module of the class that was trained with the exported weights; returns it in evaluation mode.

        Args
            model: what is filled. Without it a new one, where its code is at hand: in the process that trained it, or
                of a class that can be imported and takes no arguments.

        Returns
            The module, in evaluation mode.

        Raises
            PlanError: names or shapes do not fit.
        """
        from multistep.tasks import own_model_room

        loaded: nn.Module = own_model_room(self.model).load(self.model, model)
        return loaded

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the validation score of each trial over its steps, with the baseline's.

        Args
            ax: where to draw; None: a new figure.

        Returns
            Matplotlib's axes.

        Raises
            PlanError: matplotlib is not installed.
        """
        from multistep.interface.plot import plot

        return plot(self.folder, ax)

    def _is_own(self) -> bool:
        from multistep.tasks.folders import existing, task_of

        return task_of(existing(str(self.folder))) == OWN_MODEL

    def __repr__(self) -> str:
        from multistep.interface.shown import in_lines

        return in_lines(self.record, self.folder)

    def _repr_html_(self) -> str:
        from multistep.interface.shown import in_html

        return in_html(self.record, self.folder)
