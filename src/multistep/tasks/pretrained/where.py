"""Where a listed model can be had: in folders that the user names, in the local cache of the hub, on the hub."""

from __future__ import annotations

import os
import threading
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from multistep.tasks.hub import first_line, quietly

FOLDERS = "MULTISTEP_PRETRAINED"  # environment variable: folders that hold model folders, with ':' between them
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
POOLING = "1_Pooling/config.json"  # of sentence-transformers: what an encoder was trained to say a text by
REACHED_SECONDS = 3.0  # for the hub to answer


def local(model: str) -> Path | None:
    """The folder of a model that is on this machine: of the user's own folders, else of the hub's cache."""
    return _in_folders(model) or _in_cache(model)


def _in_folders(model: str) -> Path | None:
    """`FOLDER/owner/name`, `FOLDER/owner--name` or `FOLDER/name`, whichever is there first."""
    names = (model, model.replace("/", "--"), model.rpartition("/")[2])
    for folder in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        for name in names:
            if _whole(found := Path(folder).expanduser() / name):
                return found.absolute()
    return None


def _in_cache(model: str) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json", cache_dir=constants.HF_HUB_CACHE)
    folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder and _whole(folder) else None


def _whole(folder: Path) -> bool:
    """Whether a folder holds a model with its weights, all of them where an index names several files."""
    if not (folder / "config.json").is_file():
        return False
    found = {path.name for pattern in WEIGHTS for path in folder.glob(pattern) if path.exists()}
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return bool(found)
    import json

    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) <= found
    except (OSError, ValueError, LookupError, AttributeError):
        return False


def hub_id(folder: str) -> str | None:
    """The id of a model in a snapshot of the hub's cache: .../models--owner--name/snapshots/hash."""
    path = Path(folder)
    if path.parent.name != "snapshots" or not path.parents[1].name.startswith("models--"):
        return None
    return path.parents[1].name.removeprefix("models--").replace("--", "/")


def file_beside(source: str, name: str) -> Path | None:
    """A small file of a model that loading it does not fetch: of its folder, else of the hub, if it is from there."""
    from huggingface_hub import constants, hf_hub_download

    path = Path(source) / name
    if path.is_file():
        return path
    model = hub_id(source) if Path(source).is_dir() else source
    if model is None:
        return None
    try:
        with quietly():
            found = hf_hub_download(
                model,
                name,
                cache_dir=constants.HF_HUB_CACHE,
                endpoint=constants.ENDPOINT,
                etag_timeout=REACHED_SECONDS,
            )
    except (OSError, ValueError):  # all that the hub raises: it has no such file, or cannot be asked
        return None
    return Path(found)


class Hub:
    """The hub, which is asked in the background: whoever has no network does not wait for it more than once."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._found: Any = None
        self._why_not = "no answer"
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        from huggingface_hub import HfApi, constants

        try:
            self._found = HfApi(endpoint=constants.ENDPOINT).model_info(self._model, timeout=REACHED_SECONDS)
        except Exception as error:  # of httpx, of the hub, of a proxy: whatever it is, the model is not to be had
            self._why_not = first_line(error)

    def why_not(self) -> str:
        """Empty where the hub has the model and gives it to everybody; waits a few seconds at most."""
        self._thread.join(REACHED_SECONDS + 0.5)
        if self._found is None:
            return self._why_not
        return "it is gated" if self._found.gated else ""

    def download(self, seconds: float) -> Path | str:
        """The model's folder in the cache; or why it is not there. What came within `seconds` is kept for next time."""
        from huggingface_hub import constants, snapshot_download

        files = [file.rfilename for file in self._found.siblings or ()]
        top = [name for name in files if "/" not in name]  # in folders are the same weights in other formats
        safe = any(name.endswith(".safetensors") for name in top)
        kinds = ("*.json", "*.txt", "*.model", "*.jinja", WEIGHTS[0] if safe else WEIGHTS[1])
        wanted = [name for name in top if any(fnmatch(name, kind) for kind in kinds)]
        wanted += [POOLING] if POOLING in files else []
        outcome: list[Path | str] = []

        def fetch() -> None:
            try:
                with quietly():
                    # Of the branch, not of its commit: the cache then knows which snapshot the branch's is.
                    folder = snapshot_download(
                        self._model,
                        cache_dir=constants.HF_HUB_CACHE,
                        allow_patterns=wanted,
                        endpoint=constants.ENDPOINT,
                    )
                outcome.append(Path(folder))
            except Exception as error:  # as above
                outcome.append(first_line(error))

        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(seconds)
        return outcome[0] if outcome else f"downloading it takes more than {seconds:.0f}s"
