"""A run's model to a model hub: what would be sent, and the one commit that sends it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.engine.card_head import read_head, to_yaml
from multistep.engine.checkpoints import MANIFEST
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunDirectoryError, RunFailed

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}(?<![-.])/[A-Za-z0-9][\w.-]{0,95}(?<![-.])")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
CARD = "README.md"
ADVICE = {
    401: "log in with `hf auth login`, or set HF_TOKEN to a token that may write",
    403: "the token may not write there: make one that may, or name an account of yours",
}


@dataclass(frozen=True)
class Pushed:
    """What was sent, or with a dry run what would be: `files` with their bytes, the card's text, and the address.

    `url` and `commit` are None after a dry run.
    """

    repository: str
    private: bool
    files: dict[str, int]
    card: str
    url: str | None = None
    commit: str | None = None


def push(
    run: Path,
    repository: str,
    *,
    private: bool = False,
    license: str | None = None,
    with_report: bool = False,
    message: str | None = None,
    dry_run: bool = False,
) -> Pushed:
    """`multistep.push`, which has the documentation."""
    if not NAME.fullmatch(repository):
        raise PlanError(
            f"push: '{repository}' is no name on the hub; allowed: OWNER/NAME of letters, digits, '-', '_' and '.'"
        )
    if license is not None and not LICENSE.fullmatch(license):
        raise PlanError(f"push: license '{license}'; allowed: an identifier of the hub's, such as apache-2.0 or mit")
    contents = _contents(run, license, with_report)
    card = contents[CARD]
    assert isinstance(card, str)
    files = {
        name: len(content.encode()) if isinstance(content, str) else content.stat().st_size
        for name, content in sorted(contents.items())
    }
    if dry_run:
        return Pushed(repository, private, files, card)
    said = message or f"multistep: {run.resolve().name}"
    url, commit = _send(repository, contents, private, said)
    return Pushed(repository, private, files, card, url, commit)


def _contents(run: Path, license: str | None, with_report: bool) -> dict[str, Path | str]:
    """What is to be sent: a path or a text by its name there."""
    from multistep.tasks.folders import existing

    directory = RunDirectory(run)
    if directory.exists and not directory.result.exists():
        raise RunDirectoryError(f"{run}: this run has not finished; go on with `multistep resume {run}`")
    folder = Path(existing(str(run)))
    contents: dict[str, Path | str] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST  # checksums of the folder as it is here
    }
    # Beside a baseline that ships lies the network's card, which tells of both.
    cards = (folder / CARD, directory.model / CARD)
    card = next((path.read_text(encoding="utf-8") for path in cards if path.is_file()), "")
    if not card:
        raise RunDirectoryError(f"{folder}: has no card ({CARD}); name a run directory that `multistep train` made")
    head, text = read_head(card)
    if license is not None:
        head["license"] = license
    contents[CARD] = f"---\n{to_yaml(head)}---\n{text}" if head else text
    if with_report:
        for path in (directory.report, directory.result):
            if path.is_file():
                contents[f"multistep/{path.name}"] = path
    return contents


def _send(repository: str, contents: dict[str, Path | str], private: bool, message: str) -> tuple[str, str]:
    """Make the repository, if it is not there, and the commit; returns both addresses' ends."""
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.is_offline_mode():
        raise PlanError("push: HF_HUB_OFFLINE is set, so that the hub is not asked; unset it, or use --dry-run")
    api = HfApi(endpoint=constants.ENDPOINT, library_name="multistep")
    operations: list[CommitOperationAdd] = [
        CommitOperationAdd(name, content.encode() if isinstance(content, str) else str(content))
        for name, content in sorted(contents.items())
    ]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message=message)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise _refused(repository, ADVICE.get(status), error) from error
    except Exception as error:  # of httpx, the network, or a card that the hub does not take
        raise _refused(repository, None, error) from error
    return str(done.repo_url), str(done.oid)


def _refused(repository: str, advice: str | None, error: Any) -> Exception:
    from multistep.tasks.hub import first_line

    if advice:
        return PlanError(f"push: the hub does not take {repository} ({first_line(error)}); {advice}")
    return RunFailed(f"push: {repository} was not sent ({first_line(error)}); the same command tries again")
