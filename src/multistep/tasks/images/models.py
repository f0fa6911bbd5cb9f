"""Image classifiers of each kind: built for each trial, asked for logits, written as folders; `load` finds them."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.weights import as_os_errors
from multistep.core.values.recipe import Recipe
from multistep.core.values.understood import one_or_many
from multistep.errors import PlanError
from multistep.tasks.folders import write_task
from multistep.tasks.hub import draw_fresh, quietly
from multistep.tasks.images import nets
from multistep.tasks.images.about import about_labels
from multistep.tasks.images.decode import Form
from multistep.tasks.images.nets import NetConfig, SmallNet
from multistep.tasks.labelled.labels import PROBLEMS, Labels
from multistep.tasks.labelled.linear_probe import LinearProbe
from multistep.tasks.labelled.scale import UNSCALED, Scale, rescale

TASK = "image-classification"
WEIGHTS, SOURCE = "model.safetensors", "net.py"
NOUNS = {"class": "classes", "classes": "labels"}
MODEL_TYPE = "multistep-image"  # of the small nets, among the models of transformers
STANDARD = {  # arXiv 1512.03385, table 1: blocks of each stage, and their kind
    "resnet-18": ((2, 2, 2, 2), "basic"),
    "resnet-34": ((3, 4, 6, 3), "basic"),
    "resnet-50": ((3, 4, 6, 3), "bottleneck"),
}
NET_USAGE = """import multistep.hf  # registers the net with transformers; net.py in the folder does without both
from PIL import Image
from transformers import pipeline
classify = pipeline("image-classification", {{model}})
print(classify(Image.new("RGB", ({width}, {height}))))  # or the path of an image"""
PIPELINE_USAGE = """from PIL import Image
from transformers import pipeline
classify = pipeline("image-classification", {{model}})
print(classify(Image.new("RGB", ({width}, {height}))))  # or the path of an image"""


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of each channel of the training images, 0 to 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Maker(Protocol):
    """One kind of net: pixels (B, C, H, W) from 0 to 255 -> logits (B, outputs).

    Numbers are trained in the deviations of a scale; a folder's last layer gives them in their own unit.
    """

    labels: Labels
    form: Form  # what it was made for, and reads where a recipe names no sizes
    pretrained: bool
    origin: Origin | None
    able: bool  # to do the task as it is: pretrained, with a last layer for these labels
    architecture: str
    description: str
    settings: tuple[str, ...]  # of dropout and resolution, those that it can have
    usage: str

    def build(self, seed: int) -> nn.Module: ...
    def configure(self, model: nn.Module, recipe: Recipe) -> None: ...
    def write(self, model: nn.Module, folder: Path, height: int, width: int) -> None: ...


class NetMaker:
    """The small nets, from nothing or from a folder that one was exported to."""

    settings: tuple[str, ...] = ("dropout", "resolution")

    def __init__(
        self,
        config: NetConfig,
        labels: Labels,
        form: Form,
        statistics: Statistics,
        weights: SmallNet | None = None,
        *,
        scale: Scale = UNSCALED,
        same: bool = True,
    ) -> None:
        """`same` tells whether the head of `weights` is for these labels."""
        self._config, self._weights = replace(config, classes=labels.outputs), weights
        self._statistics, self._scale, self._same = statistics, scale, same
        self.labels, self.form = labels, form
        self.pretrained = weights is not None
        self.origin = Origin(None) if weights is not None else None
        self.able = weights is not None and same
        self.architecture = config.kind
        self.usage = NET_USAGE.format(**vars(form))
        count = f", {config.blocks} {one_or_many(config.blocks, 'blocks')} each"
        blocks = count if config.kind == nets.RESNET else ""
        stages = f"{config.stages} stages from width {config.width}{blocks}"
        self.description = f"{config.kind}: {stages}, {form}, {outputs_in_words(labels)}"

    def build(self, seed: int) -> nn.Module:
        with torch.random.fork_rng([]):  # torch draws first weights of its own, which are drawn anew
            net = nets.initialise(SmallNet(self._config), seed)
        set_statistics(net, self._statistics)
        if self._weights is not None:
            known, head = self._weights.state_dict(), self._same
            net.load_state_dict({k: v for k, v in known.items() if head or not k.startswith("head.")}, strict=head)
            with torch.no_grad():
                rescale(net, self._scale.undone, () if head else ("head.weight",))
        return net

    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        assert isinstance(model, SmallNet)
        model.dropout.p = recipe.dropout

    def write(self, model: nn.Module, folder: Path, height: int, width: int) -> None:
        state = in_unit(model, self._scale).state_dict()
        tensors = {nets.PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        shutil.copyfile(nets.__file__, folder / SOURCE)
        about = {**described(self, height, width), "net": nets.sizes(self._config)}
        write_task(folder, TASK, about)
        for name, content in hugging_face_files(about).items():
            (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def hugging_face_files(about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What transformers reads beside the weights of a small net, once `multistep.hf` has told it of them.

    Written here, since transformers takes seconds to import, and a run of a small net needs none of it.
    """
    labels, kind = list(about["labels"]), about.get("kind", "class")
    config = {
        "architectures": ["MultistepForImageClassification"],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "net": dict(about["net"]),
        "height": about["height"],
        "width": about["width"],
        "white": about.get("white"),
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": PROBLEMS[kind],
    }
    form = {key: about.get(key) for key in ("channels", "height", "width", "white")}
    return {
        "config.json": config,
        "preprocessor_config.json": {"image_processor_type": "MultistepImageProcessor", **form},
    }


class Pixels(nn.Module):
    """A model of transformers that reads pixels from 0 to 255."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: Any, statistics: Statistics) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, len(statistics.mean), 1, 1))
        self.register_buffer("std", torch.ones(1, len(statistics.std), 1, 1))
        self.net = net
        set_statistics(self, statistics)

    def forward(self, pixels: Tensor) -> Tensor:
        x = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.net(pixel_values=x).logits
        return logits


class TransformersMaker:
    """Any image classifier that transformers has: of a local folder, of the hub, or a ResNet from nothing.

    `fresh` are the parameters that a pretrained one does not bring, its head's: they are drawn anew for each trial.
    """

    def __init__(
        self,
        net: Any,
        form: Form,
        statistics: Statistics,
        fresh: Sequence[str] = (),
        *,
        pretrained: bool,
        name: str,
        labels: Labels,
        scale: Scale = UNSCALED,
    ) -> None:
        self._net, self._statistics, self._fresh, self._scale = net, statistics, fresh, scale
        self.form, self.pretrained = form, pretrained
        new = tuple(f"net.{parameter}" for parameter in fresh)
        self.origin = Origin(name, new, within="net.") if pretrained else None
        self.able = pretrained and not fresh
        self.labels = labels
        self.probe: LinearProbe | None = None  # what a new last layer begins as; None: drawn
        self.architecture = str(net.config.model_type)
        dropout = ("dropout",) if _dropouts(net) else ()
        self.settings = (*dropout, *(("resolution",) if _any_size(net) else ()))
        self.usage = PIPELINE_USAGE.format(**vars(form))
        self.description = f"{name} ({type(net).__name__}), {form}, {outputs_in_words(labels)}"

    def build(self, seed: int) -> nn.Module:
        if self.pretrained:
            net = copy.deepcopy(self._net)
            draw_fresh(net, self._fresh, seed)
            with torch.no_grad():
                rescale(net, self._scale.undone, self._fresh)
        else:
            with torch.random.fork_rng([]):
                torch.manual_seed(seed)
                net = type(self._net)(copy.deepcopy(self._net.config))
        if self.probe is not None:
            self.probe.put_into(net)
        return Pixels(net, self._statistics).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        places = _dropouts(model)
        if recipe.dropout and not places:
            raise PlanError(f"recipe.dropout is {recipe.dropout:g}, but {self.architecture} has none; leave it out")
        for module in places:
            module.p = recipe.dropout
        if recipe.resolution and "resolution" not in self.settings:
            raise PlanError(
                f"recipe.resolution: this {self.architecture} has learnt positions, so it reads images of "
                f"{self.form.height} x {self.form.width} alone; leave it out"
            )

    def write(self, model: nn.Module, folder: Path, height: int, width: int) -> None:
        assert isinstance(model, Pixels)
        with quietly(), as_os_errors():
            in_unit(model.net, self._scale).save_pretrained(folder)
        processor = {
            "image_processor_type": "ViTImageProcessor",  # resize, scale and normalise, nothing else
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": height, "width": width},
            "resample": 2,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [mean / 255 for mean in model.mean.flatten().tolist()],
            "image_std": [std / 255 for std in model.std.flatten().tolist()],
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")
        write_task(folder, TASK, described(self, height, width))


def described(maker: Maker, height: int, width: int) -> dict[str, Any]:
    """What lies beside exported weights: classes, size, and what is white in images with more than 8 bits."""
    form = maker.form
    deep = {} if form.white is None else {"white": form.white}
    return {**about_labels(maker.labels), "channels": form.channels, "height": height, "width": width, **deep}


def in_unit(model: Any, scale: Scale) -> Any:
    """The model, or a copy of it whose last layer gives numbers in the unit of the labels."""
    if scale == UNSCALED:
        return model
    model = copy.deepcopy(model)
    with torch.no_grad():
        rescale(model, scale, ())
    return model


def outputs_in_words(labels: Labels) -> str:
    """For descriptions: `3 classes`, `3 labels`, `a number`."""
    return "a number" if labels.kind == "number" else f"{len(labels.names)} {NOUNS[labels.kind]}"


def set_statistics(model: nn.Module, statistics: Statistics) -> None:
    """Set what pixels are normalised by."""
    with torch.no_grad():
        for name in ("mean", "std"):
            buffer = model.get_buffer(name)
            buffer.copy_(torch.tensor(getattr(statistics, name)).view_as(buffer))


def make_standard(name: str, labels: Labels, form: Form, statistics: Statistics, scale: Scale) -> Maker:
    """A ResNet in the standard form, from nothing, as transformers has it."""
    from transformers import ResNetConfig, ResNetForImageClassification

    depths, kind = STANDARD[name]
    widths = [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048]
    config = ResNetConfig(
        num_channels=form.channels,
        hidden_sizes=widths,
        depths=list(depths),
        layer_type=kind,
        **head_of(labels),
    )
    with torch.random.fork_rng([]):
        net = ResNetForImageClassification(config)
    name = f"{name} from nothing"
    return TransformersMaker(net, form, statistics, pretrained=False, name=name, labels=labels, scale=scale)


def head_of(labels: Labels) -> dict[str, Any]:
    """What a configuration of transformers says of the outputs."""
    names = labels.output_names
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": PROBLEMS[labels.kind],
    }


def _dropouts(model: nn.Module) -> list[nn.Dropout]:
    return [module for module in model.modules() if isinstance(module, nn.Dropout)]


def _any_size(net: nn.Module) -> bool:
    """Whether the net reads images of any size: what has learnt positions does not."""
    return not any("position" in name for name, _ in [*net.named_parameters(), *net.named_buffers()])
