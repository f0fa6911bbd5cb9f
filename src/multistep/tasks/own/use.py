"""What is left of a run of the user's own model: the folder with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from multistep.core.values.tasks import OWN_MODEL
from multistep.engine.checkpoints import sha256
from multistep.tasks.folders import write_task
from multistep.tasks.own.model import fill, weights_of

Fold = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
WEIGHTS, CONFIG = "model.safetensors", "config.json"
USAGE = """from safetensors.torch import load_file
weights = load_file({model} + "/model.safetensors")
print(*weights, sep="\\n")
# model = ...              # your own class, as it was trained
# model.load_state_dict(weights)
# model.eval()"""


def write_model(
    model: nn.Module, folder: Path, card: str, content: Mapping[str, Any], folded: Fold | None = None
) -> str:
    """Write the model folder; return the SHA-256 of the weights. `folded` makes of the trained weights the user's.

    Beside the weights of a model of transformers lies its configuration, with which `from_pretrained` reads them.
    """
    weights = weights_of(model)
    (folder / WEIGHTS).write_bytes(save(folded(weights) if folded else weights, metadata={"format": "pt"}))
    config: Any = getattr(model, "config", None)
    if hasattr(model, "save_pretrained") and hasattr(config, "to_json_file"):
        config.to_json_file(folder / CONFIG)
    write_task(folder, OWN_MODEL, content)
    origin = f"`{content['class']}` of `{content['module']}`"
    if content["source"]:
        origin += f" ({content['source']}, SHA-256 {str(content['source_sha256'])[:12]}...)"
    (folder / "README.md").write_text(
        f"{card}\n## Model\nThe weights are the state dict of {origin}.\n", encoding="utf-8"
    )
    return sha256(folder / WEIGHTS)


def load_weights(module: nn.Module, folder: Path) -> nn.Module:
    """Fill a module with the weights of a model folder and put it into evaluation mode; returns it.

    Raises PlanError where names or shapes do not fit.
    """
    fill(module, folder / WEIGHTS)
    return module.eval()
