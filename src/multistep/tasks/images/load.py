"""Image classifiers that exist: of a folder that a run left, or of transformers, locally or on its hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from multistep.errors import PlanError, nearest
from multistep.tasks.folders import TASK_FILE, read_task
from multistep.tasks.hub import first_line, quietly, why_not_had
from multistep.tasks.images import nets
from multistep.tasks.images.decode import Form
from multistep.tasks.images.models import Maker, NetMaker, Statistics, TransformersMaker
from multistep.tasks.images.nets import NetConfig, SmallNet
from multistep.tasks.images.preset import PRESETS


def form_of_model(name: str) -> Form:
    """What the classifier of a local folder or hub id reads. Raises PlanError that says what is missing."""
    about = read_task(name)
    if about.get("net"):
        return Form(about["channels"], about["height"], about["width"], about.get("white"))
    processor, config = _processor(name), _config(name)
    size = processor.get("crop_size" if processor.get("do_center_crop") else "size") or config.get("image_size") or 224
    size = size if isinstance(size, dict) else {"height": size, "width": size}
    side = size.get("shortest_edge") or 224
    height, width = (int(size.get(name) or side) for name in ("height", "width"))
    return Form(int(config.get("num_channels", 3)), height, width, about.get("white"))


def load_model(
    name: str, classes: Sequence[str] | None, statistics: Statistics | None, white: float | None = None
) -> tuple[Maker, list[str]]:
    """The classifier of a local folder or hub id, and notes.

    Its head is kept where its classes are those of the data, in its own order, else begun anew. `classes` None: as it
    is. `statistics` are for models that do not say how they want pixels normalised, `white` for those that have seen
    no images with more than 8 bits.
    """
    form = form_of_model(name)
    form = replace(form, white=form.white or white)
    if read_task(name).get("net"):
        return _load_net(Path(name), classes, form)
    from transformers import AutoModelForImageClassification

    config = _config(name)
    own = [str(label) for _, label in sorted(((int(i), v) for i, v in config.get("id2label", {}).items()))]
    same = classes is None or set(own) == set(classes)
    head: dict[str, Any] = {}
    if not same:
        assert classes is not None
        head = {"id2label": dict(enumerate(classes)), "label2id": {label: i for i, label in enumerate(classes)}}
        head |= {"num_labels": len(classes), "ignore_mismatched_sizes": True}
    try:
        with torch.random.fork_rng([]), quietly():
            net, found = AutoModelForImageClassification.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, **head
            )
    except (OSError, ValueError) as error:
        raise _not_to_be_had(name, error) from error
    processor = _processor(name)
    if processor.get("do_normalize", True) and processor.get("image_mean"):
        scale = 1 / float(processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 1.0
        numbers = [tuple(float(v) * scale for v in processor[key]) for key in ("image_mean", "image_std")]
        statistics = Statistics(*numbers)
    elif processor:
        statistics = Statistics((0.0,) * form.channels, (255.0,) * form.channels)
    statistics = statistics or Statistics((127.5,) * form.channels, (64.0,) * form.channels)
    lacking = {*found["missing_keys"], *(entry[0] for entry in found["mismatched_keys"])}
    fresh = tuple(name for name, _ in net.named_parameters() if name in lacking)
    if fresh and classes is None:
        raise PlanError(f"model '{name}': the weights of {fresh[0]} are missing, so it cannot classify yet; train it")
    notes = [] if same else [f"{name}: its classes are not those of the data, so its last layer is trained anew"]
    return TransformersMaker(net, form, statistics, fresh, pretrained=True, name=name), notes


def _load_net(folder: Path, classes: Sequence[str] | None, form: Form) -> tuple[Maker, list[str]]:
    """A small net that this project exported."""
    from safetensors import SafetensorError

    try:
        about = nets.read(folder)
        config = NetConfig(**about["net"])
        weights = SmallNet(config)
        weights.load_state_dict(nets.weights(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise PlanError(f"model: {folder} is damaged ({first_line(error)}); export or copy it again") from error
    own = [str(label) for label in about["labels"]]
    same = classes is None or set(own) == set(classes)
    mean, std = (tuple(weights.get_buffer(name).flatten().tolist()) for name in ("mean", "std"))
    kept = own if same or classes is None else list(classes)
    notes = [] if same else [f"{folder}: its classes are not those of the data, so its last layer is trained anew"]
    return NetMaker(config, kept, form, Statistics(mean, std), weights), notes


def own_classes(name: str) -> tuple[str, ...]:
    """The classes that a model folder or hub id knows, in its order."""
    if labels := read_task(name).get("labels"):
        return tuple(str(label) for label in labels)
    found = _config(name).get("id2label", {})
    return tuple(str(label) for _, label in sorted((int(i), v) for i, v in found.items()))


def _config(name: str) -> dict[str, Any]:
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise PlanError(f"model: {folder} holds neither config.json nor {TASK_FILE} of an exported net")
    if not folder.is_dir() and (name.count("/") > 1 or name.startswith((".", "/"))):
        raise PlanError(f"model: {name}: no such folder")
    from transformers import AutoConfig

    try:
        found: dict[str, Any] = AutoConfig.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        raise _not_to_be_had(name, error) from error
    return found


def _processor(name: str) -> dict[str, Any]:
    """How a model wants images prepared; empty where it does not say."""
    from transformers import AutoImageProcessor

    try:
        with quietly():
            found: dict[str, Any] = AutoImageProcessor.from_pretrained(name).to_dict()  # type: ignore[no-untyped-call]
    except Exception:  # no file of that name, or one that only other libraries can read
        return {}
    return found


def _not_to_be_had(name: str, error: Exception) -> PlanError:
    return PlanError(
        f"model '{name}' is neither a preset ({', '.join(PRESETS)}) nor a folder, and could not be fetched from the "
        "hub "
        f"({why_not_had(name, error)}).{nearest(name, PRESETS)}"
    )
