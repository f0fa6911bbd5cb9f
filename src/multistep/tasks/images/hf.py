"""The small image nets as models of transformers; `multistep.hf` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ImageClassificationPipeline, PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from multistep.tasks.folders import write_task
from multistep.tasks.images.about import about_labels
from multistep.tasks.images.decode import Form, Pixels, decode, in_form, require_pillow
from multistep.tasks.images.models import MODEL_TYPE, TASK
from multistep.tasks.images.nets import NetConfig, SmallNet
from multistep.tasks.labelled.labels import Labels, kind_of_problem
from multistep.tasks.labelled.loss import loss_of

DEFAULT_NET = {"kind": "resnet-small", "channels": 3, "classes": 2, "width": 16}


class MultistepImageConfig(PreTrainedConfig):
    """The sizes of a small net, as `NetConfig` has them, its classes, and the size of the images that it reads."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        height: int = 32,
        width: int = 32,
        white: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.net = {**DEFAULT_NET, **(net or {}), "classes": self.num_labels}
        self.height, self.width, self.white = height, width, white


class MultistepForImageClassification(PreTrainedModel):
    """A small net: pixels from 0 to 255, in the size that its processor makes, -> logits."""

    config_class = MultistepImageConfig
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012

    def __init__(self, config: MultistepImageConfig) -> None:
        super().__init__(config)
        self.net = SmallNet(NetConfig(**config.net))
        self.post_init()

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, return_dict: bool | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention | tuple[Tensor, ...]:
        """(B, channels, height, width) -> logits (B, outputs); with labels also the mean loss.

        Labels are class numbers (B), of several labels zeros and ones (B, labels), or numbers (B), in their own unit.
        """
        logits = self.net(pixel_values)
        loss = None
        if labels is not None:
            kind = kind_of_problem(self.config.problem_type, self.config.net["classes"])
            told = labels.float() if kind != "class" else labels
            loss = loss_of(logits, told, kind, None, 0.0, "none").mean()
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write a folder that `multistep` reads too."""
        super().save_pretrained(save_directory, **kwargs)
        config: Any = self.config
        labels = [config.id2label[i] for i in range(config.num_labels)]
        size = {"channels": config.net["channels"], "height": config.height, "width": config.width}
        white = {} if config.white is None else {"white": config.white}
        kind = kind_of_problem(config.problem_type, config.num_labels)
        about = about_labels(Labels(kind, () if kind == "number" else tuple(labels)))
        write_task(Path(save_directory), TASK, {**about, **size, **white, "net": config.net})

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """First weights as training from nothing has them: of what a folder does not bring, a new head above all."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, SmallNet):
            module.mean.fill_(127.5)
            module.std.fill_(64.0)


class MultistepImageProcessor(BaseImageProcessor):
    """Images as the net was trained on: whole, in its size and mode, 0 to 255; the net itself normalises them.

    Reads what `multistep predict` reads, in the same way: paths, images of Pillow, arrays (H, W, C) or (C, H, W) of
    bytes. Paths and images that Pillow has just opened keep what lies behind 8 bits and transparency.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012

    def __init__(
        self, channels: int = 3, height: int = 32, width: int = 32, white: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels, self.height, self.width, self.white = channels, height, width, white

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """`pixel_values` (B, channels, height, width). Raises ValueError for an image that cannot be read."""
        require_pillow()
        several = images if isinstance(images, list | tuple) else [images]
        pixels = np.stack([self._read(image) for image in several]).transpose(0, 3, 1, 2).astype(np.float32)
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def _read(self, image: Any) -> Pixels:
        form = Form(self.channels, self.height, self.width, self.white)
        if isinstance(image, Tensor):
            image = image.numpy()
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                raise ValueError(f"an array of {image.dtype}; allowed: bytes (uint8), 0 to 255")
            first = image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3)
            image = image.transpose(1, 2, 0) if first else image
            found = decode(image, form)
        elif isinstance(image, str | Path):
            found = decode(Path(image).expanduser(), form)
        else:
            found = in_form(image, form)
        if isinstance(found, str):
            raise ValueError(f"{image if isinstance(image, str | Path) else 'the image'}: {found}")
        return found


class MultistepImagePipeline(ImageClassificationPipeline):
    """The pipeline of transformers; a file goes to the processor of a small net as it is, not turned into RGB first."""

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:
        if isinstance(self.image_processor, MultistepImageProcessor):
            remote = isinstance(image, str) and image.startswith(("http://", "https://", "data:"))
            if not remote:
                return self.image_processor(images=image, return_tensors="pt").to(self.dtype)
        return super().preprocess(image, timeout=timeout)
