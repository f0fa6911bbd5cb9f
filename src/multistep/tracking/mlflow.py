"""MLflow: one run of an experiment for the whole run, and nested in it one for each trial.

Its store is asked what it has, so nothing is told twice, whoever told it before. The store is what MLflow's own
MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say; https://mlflow.org/docs/latest/ml/tracking/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from multistep.engine.rundir import RunDirectory
from multistep.tracking.account import Account, Told

if TYPE_CHECKING:
    from mlflow.entities import Run

RUN_TAG, TRIAL_TAG, SENT_TAG = "multistep.run", "multistep.trial", "multistep.files_sent"
LONGEST = {"param": 6000, "tag": 5000}  # characters that every store takes
AT_ONCE = {"metrics": 1000, "params": 100, "tags": 100}  # of a call


class Tracker:
    """Tells accounts of one run to MLflow."""

    def __init__(self, directory: RunDirectory, *, with_model: bool) -> None:
        from mlflow import MlflowClient

        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        self._with_model = with_model
        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "multistep"
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._known: dict[str, str] = {}  # MLflow's ids, by our names
        self._has: dict[tuple[str, str], set[tuple[int, int]]] = {}  # by MLflow's id and key: time and step
        self._closed: set[str] = set()

    @property
    def destination(self) -> str:
        from mlflow import get_tracking_uri

        return f"MLflow at {get_tracking_uri()}"

    def send(self, account: Account) -> None:
        """Tell what the store does not have of it yet."""
        parent = ""
        for told in account.runs:
            name = f"{account.id} {told.name}"
            run = self._run(account, told, parent)
            parent = parent or run
            if name in self._closed:
                continue
            self._tell(run, told)
            if told.name == "." and told.ended:
                self._send_files(run, account)
            if told.ended:
                ends = int(told.curve[-1].seconds * 1000) if told.curve else None
                status = "FAILED" if told.ended == "failed" else "FINISHED"
                self._client.set_terminated(run, status, ends)
                self._closed.add(name)

    def _run(self, account: Account, told: Told, parent: str) -> str:
        """MLflow's id of the run, which is made where there is none."""
        name = f"{account.id} {told.name}"
        if name not in self._known:
            tags = {RUN_TAG: account.id, TRIAL_TAG: told.name, "mlflow.source.name": "multistep"}
            if parent:
                tags |= {"mlflow.parentRunId": parent, "mlflow.note.content": told.title}
            found = self._search(account.id, told.name)
            if not found:
                begins = int(told.curve[0].seconds * 1000) if told.curve else None
                title = told.title if told.name == "." else told.name
                made = self._client.create_run(self._experiment, begins, tags, title)
                self._known[name] = made.info.run_id
                self._tell_settings(made.info.run_id, told)
            else:
                self._known[name] = found[0].info.run_id
                if told.settings and not found[0].data.params:  # a kill came between
                    self._tell_settings(self._known[name], told)
        return self._known[name]

    def _search(self, run: str, trial: str) -> Sequence[Run]:
        wanted = f"tags.`{RUN_TAG}` = '{run}' and tags.`{TRIAL_TAG}` = '{trial}'"
        found: Sequence[Run] = self._client.search_runs([self._experiment], wanted, max_results=1)
        return found

    def _tell_settings(self, run: str, told: Told) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[: LONGEST["param"]]) for key, value in told.settings.items()]
        for part in _parts(params, AT_ONCE["params"]):
            self._client.log_batch(run, params=part)

    def _tell(self, run: str, told: Told) -> None:
        from mlflow.entities import Metric, RunTag

        metrics: list[Any] = []
        for numbers in told.curve:
            for tag, value in numbers.by_tag.items():
                if self._is_new(run, tag, at := (int(numbers.seconds * 1000), numbers.step)):
                    metrics.append(Metric(tag, float(value), *at))
        last = (int(told.curve[-1].seconds * 1000), told.curve[-1].step) if told.curve else (0, 0)
        if told.ended:
            for tag, value in told.scores.items():
                if not self._history(run, tag):  # a score that is told stays as it is
                    self._has[run, tag].add(last)
                    metrics.append(Metric(tag, float(value), *last))
        try:
            for part in _parts(metrics, AT_ONCE["metrics"]):
                self._client.log_batch(run, metrics=part)
        except Exception:
            self._has.clear()  # what arrived is asked for anew
            raise
        tags = [RunTag(f"multistep.{key}", value[: LONGEST["tag"]]) for key, value in told.said.items()]
        if tags:
            self._client.log_batch(run, tags=tags)

    def _is_new(self, run: str, tag: str, at: tuple[int, int]) -> bool:
        known = self._history(run, tag)
        if at in known:
            return False
        known.add(at)
        return True

    def _history(self, run: str, tag: str) -> set[tuple[int, int]]:
        """When and at which steps the store has this number; asked once."""
        if (run, tag) not in self._has:
            told = self._client.get_metric_history(run, tag)
            self._has[run, tag] = {(point.timestamp, point.step) for point in told}
        return self._has[run, tag]

    def _send_files(self, run: str, account: Account) -> None:
        wanted = "model" if account.model and self._with_model else "files"
        if self._client.get_run(run).data.tags.get(SENT_TAG) in (wanted, "model"):
            return
        for path in account.files:
            self._client.log_artifact(run, str(path))
        if account.model and self._with_model:
            self._client.log_artifacts(run, str(account.model), "model")
        self._client.set_tag(run, SENT_TAG, wanted)

    def close(self) -> None:
        """Nothing is held open."""


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for begin in range(0, len(items), size):
        yield list(items[begin : begin + size])
