"""Weights & Biases: a group for the run, in it one of their runs for the whole and one for each trial.

Where they go is said by W&B's own WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR; `WANDB_MODE=offline` needs no
network, and `wandb sync` sends what it wrote. https://docs.wandb.ai/guides/track/environment-variables/.
"""

from __future__ import annotations

import os
from typing import Any

from multistep.engine.rundir import RunDirectory
from multistep.tracking.account import Account, Told
from multistep.tracking.artefacts import send_files
from multistep.tracking.marks import Marks


class Tracker:
    """Tells accounts of one run to W&B, each point once: what was told stands in RUN/.tracked.json."""

    def __init__(self, directory: RunDirectory, *, with_model: bool) -> None:
        self._with_model = with_model
        self._project = os.environ.get("WANDB_PROJECT") or "multistep"
        mode = os.environ.get("WANDB_MODE") or "online"
        self.destination = f"W&B project {self._project}" + (f" ({mode})" if mode != "online" else "")
        where = os.environ.get("WANDB_DIR", "") if mode == "offline" else os.environ.get("WANDB_ENTITY", "")
        self._marks = Marks(directory, f"wandb {self._project} {mode} {where}".strip())
        self._open: dict[str, Any] = {}

    def send(self, account: Account) -> None:
        """Tell what was not told yet."""
        import wandb

        for told in account.runs:
            if self._marks.closed(told):
                continue
            run = self._run(account, told)
            for numbers in self._marks.new(told):
                # Not W&B's own step, which cannot go back; `step` is what the curves are drawn over.
                run.log({**numbers.by_tag, "step": numbers.step, "_timestamp": numbers.seconds})
            for key, value in told.said.items():
                run.summary[key] = value
            if told.ended:
                for tag, score in told.scores.items():
                    run.summary[tag] = score
                if told.name == ".":
                    send_files(wandb, run, account, with_model=self._with_model)
                run.finish(exit_code=1 if told.ended == "failed" else 0)
                del self._open[told.name]
                self._marks.close(told)

    def _run(self, account: Account, told: Told) -> Any:
        import wandb

        if told.name not in self._open:
            whole = told.name == "."
            run = wandb.init(
                project=self._project,
                group=account.id,
                id=account.id if whole else f"{account.id}-{told.name}".replace("/", "-"),
                name=told.title if whole else told.name,
                notes=None if whole else told.title,
                job_type="run" if whole else str(told.settings.get("kind", "trial")),
                config=told.config,
                reinit="create_new",
                resume="allow",
                settings=wandb.Settings(
                    console="off",
                    disable_git=True,
                    save_code=False,
                    silent=True,
                    x_disable_meta=True,
                    x_disable_stats=True,
                ),
            )
            run.define_metric("step", hidden=True)
            run.define_metric("*", step_metric="step")
            self._open[told.name] = run
        return self._open[told.name]

    def close(self) -> None:
        """End what is open here; a later tracker goes on with it under the same id."""
        for run in self._open.values():
            run.finish()
        self._open.clear()
