"""The report, the result and the model of a run, as artefacts of W&B and of Trackio, which speaks W&B's language."""

from __future__ import annotations

from typing import Any

from multistep.tracking.account import Account


def send_files(library: Any, run: Any, account: Account, *, with_model: bool) -> None:
    """Log the files of a finished run to its run in the tracker; `library` is `wandb` or `trackio`."""
    said = library.Artifact(f"run-{account.id}", type="run")
    for path in account.files:
        said.add_file(str(path))
    run.log_artifact(said)
    if account.model and with_model:
        model = library.Artifact(f"model-{account.id}", type="model")
        model.add_dir(str(account.model))
        run.log_artifact(model)
