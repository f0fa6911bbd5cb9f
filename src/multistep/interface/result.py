"""What a finished run came to, as a value: its scores, its model, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from multistep.core.evidence.metric import Interval
from multistep.core.values.events import VerdictGiven
from multistep.core.values.tasks import OWN_MODEL
from multistep.errors import PlanError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from multistep.interface.given import Data
    from multistep.tasks.prediction import Prediction


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
        """The test score of what ships, or its validation score where there is no test split."""
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

    @overload
    def predict(self, inputs: str | Path | Iterable[Any], *, tokens: int = 256) -> list[Prediction]: ...
    @overload
    def predict(self, inputs: Any, *, model: nn.Module) -> Tensor: ...
    def predict(self, inputs: Any, *, tokens: int = 256, model: nn.Module | None = None) -> list[Prediction] | Tensor:
        """What the model that ships says of each input, as `multistep.predict`; a single input is a list of one.

        Of a module of your own `model` is one of the class that was trained: what comes back are its outputs with the
        trained weights, a row an input (on the CPU). Raises PlanError or DataError for what cannot be read.
        """
        if self._is_own():
            if model is None:
                raise PlanError(
                    f"predict: the run in {self.folder} trained a module of your own, whose code is yours: give one of "
                    "its class, predict(inputs, model=MyModule(...))"
                )
            from multistep.interface.modules import outputs

            return outputs(model, self.model, inputs)
        if model is not None:
            raise PlanError(f"predict: the model is known, {self.model}; leave model= out")
        from multistep.interface.using import predict

        found: list[Prediction] = predict(self.folder, inputs, tokens=tokens)
        return found

    def evaluate(
        self, data: Data, *, text_column: str | None = None, label_column: str | None = None
    ) -> dict[str, Any]:
        """The scores on other data of the model that ships, as `multistep.evaluate`.

        Raises PlanError or DataError for what cannot be read, and for a module of your own, whose outputs `predict`
        gives.
        """
        from multistep.interface.using import evaluate

        if self._is_own():
            raise PlanError(
                f"evaluate: the run in {self.folder} trained a module of your own; predict(inputs, model=...) gives "
                "its outputs, to be scored by you"
            )
        return evaluate(self.folder, data, text_column=text_column, label_column=label_column)

    def load(self, model: nn.Module) -> nn.Module:
        """Fill a module of the class that was trained with the exported weights; returns it in evaluation mode.

        Raises PlanError where names or shapes do not fit.
        """
        from multistep.tasks.own.use import load_weights

        return load_weights(model, self.model)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the validation score of each trial over its steps, with the baseline's; returns matplotlib's axes.

        `ax` is where to draw (None: a new figure). Raises PlanError where matplotlib is not installed.
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
