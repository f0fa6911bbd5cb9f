"""Around models of transformers: loading them without noise, what they lack, what their errors say, their hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multistep.engine.checkpoints import sha256


@contextmanager
def quietly() -> Iterator[None]:
    """Without the progress bars and advice of transformers, which would break into the live view."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


ADAPTER_CONFIG = "adapter_config.json"


def no_model(folder: Path, found: str) -> str:
    """What is said of a folder that holds no model: `found`, or that it holds an adapter alone."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return f"model: {folder} {found}"
    return (
        f"model: {folder} holds an adapter and no model: only language models (text-generation, preference) are begun "
        "from one. Of a run of multistep name RUN/model, which has it in its weights; else merge it into its base "
        "with peft's merge_and_unload, and save that"
    )


def first_line(error: Exception) -> str:
    """What a library's error says, without its advice over many lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def refused_by_hub(error: BaseException, kind: str = "model") -> str:
    """Why the hub, which was reached, does not give something: it is gated or unknown; "" where it is neither."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 10:
        chain.append(before)
    if any(isinstance(e, GatedRepoError) for e in chain):
        return "it is gated: accept its terms on its page there, then log in with `hf auth login`"
    if any(isinstance(e, RepositoryNotFoundError) for e in chain):
        what = "model" if kind == "model" else "data set"
        return (
            f"the hub has no such {what}, or shows it only to some: check the spelling, or log in with `hf auth login`"
        )
    return ""


def why_not_had(name: str, error: Exception) -> str:
    """Why the hub does not give a model, and what to do: it is gated, unknown, or nobody may be asked."""
    from huggingface_hub import constants

    if refused := refused_by_hub(error):
        return refused
    if constants.is_offline_mode() and isinstance(error, OSError):
        return (
            f"HF_HUB_OFFLINE is set and it is not in the cache: `hf download {name}` gets it where there is a network"
        )
    return first_line(error)


def weights_hash(folder: Path) -> str:
    """SHA-256 of the exported weights; of several files, each one's."""
    return "+".join(sha256(file) for file in sorted(folder.glob("*.safetensors")))


def draw_fresh(model: Any, names: Sequence[str], seed: int) -> None:
    """First weights of parameters that a pretrained model did not bring; the same seed gives the same bits."""
    import torch  # whoever only asks what a folder holds needs none of it

    generator = torch.Generator().manual_seed(seed)
    spread = float(getattr(model.config, "initializer_range", 0.02))
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            if parameter.ndim > 1:
                parameter.normal_(0.0, spread, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)  # of a norm, or a bias
