"""Recognisers of each kind: built for each trial, asked for logits, written as folders; `load` finds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.core.values.recipe import Recipe
from multistep.tasks.folders import write_task
from multistep.tasks.speech import nets
from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.corpus import Frontend
from multistep.tasks.speech.decode import Decoder
from multistep.tasks.speech.features import LogMel
from multistep.tasks.speech.nets import NetConfig, SpeechNet, make_net

TASK = "speech-recognition"
WEIGHTS = "model.safetensors"
MODEL_TYPE = "multistep-speech"  # of our nets, among the models of transformers
PREFIX = "net."  # of the names of exported weights
DELIMITERS = "|▁␣"  # one of these stands for a space in a tokenizer, whichever is no character of the alphabet
PRESETS = ("deepspeech", "wavenet")
UNSEEN_BIAS = -5.0  # of a character that a loaded net never heard of, beside what it knows

OWN_USAGE = """import multistep.hf  # registers the net with transformers
import numpy as np
from transformers import pipeline
recognize = pipeline("automatic-speech-recognition", {model})
rate = recognize.feature_extractor.sampling_rate
print(recognize(np.zeros(rate, np.float32)))  # or the path of a sound file"""


class Maker(Protocol):
    """One kind of recogniser, with the alphabet that it writes."""

    alphabet: Alphabet
    frontend: Frontend
    decoder: Decoder
    pretrained: bool
    origin: Origin | None
    architecture: str
    description: str
    settings: tuple[str, ...]
    usage: str
    able: bool  # whether it can transcribe before any training
    alone: bool  # whether padding would change what it hears, so that it must be asked for one utterance at a time

    def build(self, seed: int) -> nn.Module: ...
    def logits(self, model: nn.Module, frames_BTW: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]: ...
    def configure(self, model: nn.Module, recipe: Recipe) -> None: ...
    def output_length(self, frames: int) -> int: ...
    def write(self, model: nn.Module, folder: Path) -> None: ...


class NetMaker:
    """A net of our own, from nothing or with a folder's weights."""

    usage = OWN_USAGE
    alone = False
    settings: tuple[str, ...] = ("dropout", "augmentation")

    def __init__(
        self,
        config: NetConfig,
        frontend: LogMel,
        decoder: Decoder,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        self.config, self.decoder, self.alphabet = config, decoder, decoder.alphabet
        self.frontend: Frontend = frontend
        self._features = frontend
        self._weights = weights
        self._statistics: tuple[Tensor, Tensor] | None = None
        self.pretrained = weights is not None
        self.able = self.pretrained
        self.origin = Origin(None) if weights is not None else None
        self.architecture: str = config.kind
        parts = "recurrent layers" if config.kind == "deepspeech" else "gated convolutions"
        self.description = (
            f"{config.kind}, {config.layers} {parts} of width {config.width}, {config.mels} mel bands at "
            f"{frontend.rate} Hz, {len(self.alphabet) - 1} characters"
        )

    def build(self, seed: int) -> nn.Module:
        net = make_net(self.config).initialise(seed)
        with torch.no_grad():
            if self._weights is not None:
                _fill(net, self._weights)
            elif self._statistics is not None:
                net.mean.copy_(self._statistics[0])
                net.scale.copy_(self._statistics[1])
        return net

    def normalise(self, mean: Tensor, scale: Tensor) -> None:
        """Take these of the first training split that is read; a folder's weights have theirs."""
        self._statistics = self._statistics or (mean, scale)

    def logits(self, model: nn.Module, frames_BTW: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = model(frames_BTW, lengths_B)
        return found

    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        assert isinstance(model, SpeechNet)
        model.dropout = recipe.dropout

    def output_length(self, frames: int) -> int:
        return nets.output_length(frames)

    def write(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, SpeechNet)
        tensors = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        content = {
            "net": self.config.as_json(),
            "features": self._features.as_json(),
            "alphabet": self.alphabet.as_json(),
            "decoding": self.decoder.as_json(),
        }
        write_task(folder, TASK, content)
        for name, part in hugging_face_files(content).items():
            (folder / name).write_text(json.dumps(part, ensure_ascii=False, indent=2), encoding="utf-8")


def hugging_face_files(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What transformers reads beside the weights of a net, once `multistep.hf` has told it of them.

    Written here, since transformers takes seconds to import, and a run of our own net needs none of it.
    """
    symbols, blank, features = content["alphabet"]["symbols"], content["alphabet"]["blank"], content["features"]
    delimiter = next(mark for mark in DELIMITERS if mark not in symbols)
    names = ["<pad>" if i == blank else delimiter if s == " " else s for i, s in enumerate(symbols)]
    own = {key: content[key] for key in ("net", "features", "alphabet")}
    none = dict.fromkeys(("bos_token", "eos_token", "unk_token"))
    return {
        "config.json": {
            "architectures": ["MultistepForCTC"],
            "model_type": MODEL_TYPE,
            "dtype": "float32",
            "pad_token_id": blank,
            "vocab_size": len(symbols),
            **own,
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "MultistepFeatureExtractor",
            "processor_class": "MultistepSpeechProcessor",
            "sampling_rate": features["rate"],
            "feature_size": features["mels"],
        },
        "vocab.json": {name: i for i, name in enumerate(names)},
        "tokenizer_config.json": {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "processor_class": "MultistepSpeechProcessor",
            "pad_token": "<pad>",
            "word_delimiter_token": delimiter,
            **none,
        },
    }


def _fill(net: SpeechNet, weights: dict[str, Tensor]) -> None:
    """A folder's weights; a head of more characters than it had keeps those that it knew."""
    for name, tensor in net.state_dict().items():
        other = weights[name]
        if name.startswith("head."):
            if name.endswith("bias"):
                tensor.fill_(float(other.min()) + UNSEEN_BIAS)
            tensor[: len(other)].copy_(other)
        else:
            tensor.copy_(other)
