"""Image classifiers that exist: of a folder that a run left, or of transformers, locally or on its hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from multistep.errors import PlanError, nearest
from multistep.tasks.folders import TASK_FILE, read_task
from multistep.tasks.hub import first_line, no_model, quietly, why_not_had
from multistep.tasks.images import nets
from multistep.tasks.images.about import labels_said
from multistep.tasks.images.decode import Form
from multistep.tasks.images.models import NOUNS, Maker, NetMaker, Statistics, TransformersMaker, head_of
from multistep.tasks.images.nets import NetConfig, SmallNet
from multistep.tasks.images.preset import PRESETS
from multistep.tasks.labelled.labels import Labels, kind_of_problem
from multistep.tasks.labelled.scale import UNSCALED, Scale, last_linear


def form_of_model(name: str) -> Form:
    """What the classifier of a local folder or hub id reads. Raises PlanError that says what is missing."""
    about = read_task(name)
    if about.get("net"):
        return Form(about["channels"], about["height"], about["width"], about.get("white"))
    config, processor = _config(name), _processor(name)
    size = processor.get("crop_size" if processor.get("do_center_crop") else "size") or config.get("image_size") or 224
    size = size if isinstance(size, dict) else {"height": size, "width": size}
    side = size.get("shortest_edge") or 224
    height, width = (int(size.get(name) or side) for name in ("height", "width"))
    return Form(int(config.get("num_channels", 3)), height, width, about.get("white"))


def load_model(
    name: str,
    labels: Labels | None,
    statistics: Statistics | None,
    white: float | None = None,
    scale: Scale = UNSCALED,
) -> tuple[Maker, list[str]]:
    """The classifier of a local folder or hub id, and notes.

    Its head is kept where its labels are those of the data, in its own order, else begun anew. `labels` None: as it
    is, in the unit of its numbers; else these are trained in the deviations of `scale`. `statistics` are for models
    that do not say how they want pixels normalised, `white` for those that have seen no images with more than 8 bits.
    """
    form = form_of_model(name)
    form = replace(form, white=form.white or white)
    if read_task(name).get("net"):
        return _load_net(Path(name), labels, form, scale)
    from transformers import AutoModelForImageClassification

    own = own_labels(name)
    same = labels is None or is_same(own, labels)
    head: dict[str, Any] = {}
    if not same:
        assert labels is not None
        head = {**head_of(labels), "ignore_mismatched_sizes": True}
    try:
        with torch.random.fork_rng([]), quietly():
            net, found = AutoModelForImageClassification.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, **head
            )
    except (OSError, ValueError) as error:
        raise _not_to_be_had(name, error) from error
    processor = _processor(name)
    if processor.get("do_normalize", True) and processor.get("image_mean"):
        levels = 1 / float(processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 1.0
        numbers = [tuple(float(v) * levels for v in processor[key]) for key in ("image_mean", "image_std")]
        statistics = Statistics(*numbers)
    elif processor:
        statistics = Statistics((0.0,) * form.channels, (255.0,) * form.channels)
    statistics = statistics or Statistics((127.5,) * form.channels, (64.0,) * form.channels)
    lacking = {*found["missing_keys"], *(entry[0] for entry in found["mismatched_keys"])}
    fresh = tuple(name for name, _ in net.named_parameters() if name in lacking)
    if not same and not fresh and net.get_submodule(last_linear(net)).out_features == net.config.num_labels:
        fresh = tuple(f"{last_linear(net)}.{part}" for part in ("weight", "bias"))  # of the same size, for other labels
    if fresh and labels is None:
        raise PlanError(f"model '{name}': the weights of {fresh[0]} are missing, so it cannot classify yet; train it")
    kept = own if same or labels is None else labels
    if kept.kind == "number":
        _require_a_last_layer(name, net, form)
    notes = [] if same else [f"{name}: its {_noun(own)} are not those of the data, so its last layer is trained anew"]
    made = TransformersMaker(net, form, statistics, fresh, pretrained=True, name=name, labels=kept, scale=scale)
    return made, notes


@torch.no_grad()
def _require_a_last_layer(name: str, net: Any, form: Form) -> None:
    """Raises PlanError where the output does not follow the last linear layer, by which numbers get their unit."""
    shown = torch.zeros(1, form.channels, form.height, form.width)
    net.eval()
    try:
        bias = net.get_submodule(last_linear(net)).bias
        before = float(net(pixel_values=shown).logits)
        bias.add_(1.0)
        moved = float(net(pixel_values=shown).logits) - before
        bias.sub_(1.0)
    except (AttributeError, IndexError, ValueError, RuntimeError):
        moved = 0.0
    if abs(moved - 1.0) > 1e-3:
        raise PlanError(
            f"model '{name}': its output is not that of a linear layer with a bias, which predicting numbers needs; "
            "choose another, such as a ResNet, ConvNeXt or ViT"
        )


def _noun(labels: Labels) -> str:
    return "numbers" if labels.kind == "number" else NOUNS[labels.kind]


def is_same(own: Labels, labels: Labels) -> bool:
    """Whether a head for `own` can go on for these labels, in its own order."""
    return own.kind == labels.kind and set(own.names) == set(labels.names)


def _load_net(folder: Path, labels: Labels | None, form: Form, scale: Scale) -> tuple[Maker, list[str]]:
    """A small net that this project exported."""
    from safetensors import SafetensorError

    try:
        about = nets.read(folder)
        config = NetConfig(**about["net"])
        weights = SmallNet(config)
        weights.load_state_dict(nets.weights(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise PlanError(f"model: {folder} is damaged ({first_line(error)}); export or copy it again") from error
    own = own_labels(str(folder))
    same = labels is None or is_same(own, labels)
    mean, std = (tuple(weights.get_buffer(name).flatten().tolist()) for name in ("mean", "std"))
    kept = own if same or labels is None else labels
    notes = [] if same else [f"{folder}: its {_noun(own)} are not those of the data, so its last layer is trained anew"]
    return NetMaker(config, kept, form, Statistics(mean, std), weights, scale=scale, same=same), notes


def own_labels(name: str) -> Labels:
    """What a model folder or hub id says of images: its classes or labels in its order, or a number."""
    about = read_task(name)
    if about.get("labels"):
        return labels_said(about)
    config = _config(name)
    found = config.get("id2label", {})
    names = tuple(str(label) for _, label in sorted((int(i), v) for i, v in found.items()))
    kind = kind_of_problem(config.get("problem_type"), len(names))
    return Labels(kind) if kind == "number" else Labels(kind, names)


def _config(name: str) -> dict[str, Any]:
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise PlanError(no_model(folder, f"holds neither config.json nor {TASK_FILE} of an exported net"))
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
