"""Where recognisers come from and where they go: nets of our own, from nothing or a folder; others are in `ctc`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError, nearest
from multistep.tasks.folders import read_task, write_task
from multistep.tasks.hub import first_line
from multistep.tasks.speech import nets
from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.corpus import Frontend
from multistep.tasks.speech.decode import Decoder
from multistep.tasks.speech.features import LogMel
from multistep.tasks.speech.language import CharacterModel
from multistep.tasks.speech.nets import NetConfig, SpeechNet, make_net

TASK = "speech-recognition"
WEIGHTS = "model.safetensors"
PRESETS = ("deepspeech", "wavenet")
UNSEEN_BIAS = -5.0  # of a character that a loaded net never heard of, beside what it knows

OWN_USAGE = """import numpy as np
from multistep.tasks.speech.use import load_recognizer
recognizer = load_recognizer({model})
rate = recognizer.rate
samples = np.zeros(rate, np.float32)  # or: samples, rate = soundfile.read("clip.wav", dtype="float32")
print(repr(recognizer.transcribe(samples, rate)))"""


class Maker(Protocol):
    """One kind of recogniser, with the alphabet that it writes."""

    alphabet: Alphabet
    frontend: Frontend
    decoder: Decoder
    pretrained: bool
    architecture: str
    description: str
    settings: tuple[str, ...]
    usage: str
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
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        content = {
            "net": self.config.as_json(),
            "features": self._features.as_json(),
            "alphabet": self.alphabet.as_json(),
            "decoding": self.decoder.as_json(),
        }
        write_task(folder, TASK, content)


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


# From folders ---------------------------------------------------------------------------------------


class Loaded(Protocol):
    """A model that was found, before it is known what is to be learnt."""

    rate: int
    alphabet: Alphabet | None  # None: it has none yet

    def ready(self, texts: Sequence[str]) -> Maker:
        """The recogniser for such training transcripts; for none, as it stands."""


class LoadedNet:
    def __init__(self, name: str, content: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self._name, self._weights = name, weights
        try:
            self._config = NetConfig.from_json(content["net"])
            self._features = LogMel.from_json(content["features"])
            self.alphabet: Alphabet | None = Alphabet.from_json(content["alphabet"])
            self._decoder = Decoder.from_json(content["decoding"], self.alphabet)
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"model: {name} is damaged ({error!r}); export it again") from error
        self.rate = self._features.rate

    def ready(self, texts: Sequence[str]) -> Maker:
        assert self.alphabet is not None, "it was read"
        decoder, config = self._decoder, self._config
        if texts:
            decoder = Decoder(self.alphabet.with_characters_of(texts), CharacterModel.of(texts))
            config = NetConfig(config.kind, config.mels, len(decoder.alphabet), config.layers, config.width)
        return NetMaker(config, self._features, decoder, self._weights)


def load_model(name: str) -> Loaded:
    """The recogniser of a local folder or a hub id. Raises PlanError that says what is missing."""
    folder = Path(name)
    if folder.is_dir():
        if "net" in (content := read_task(name)):
            try:
                weights = load_file(folder / WEIGHTS)
            except Exception as error:  # safetensors raises its own kind, and OSError
                raise PlanError(f"model: {folder} is damaged ({first_line(error)}); export it again") from error
            return LoadedNet(name, content, weights)
        if not (folder / "config.json").is_file():
            raise PlanError(f"model: {folder} holds neither multistep.json nor config.json; name a model folder")
    elif name.count("/") > 1 or name.startswith((".", "/")):
        raise PlanError(f"model: {name}: no such folder")
    from transformers import AutoFeatureExtractor, AutoTokenizer

    from multistep.tasks.speech.ctc import LoadedCTC

    try:
        extractor = AutoFeatureExtractor.from_pretrained(name)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        hint = nearest(name, PRESETS)
        raise PlanError(
            f"model '{name}': no preset (auto, {', '.join(PRESETS)}), no folder with a feature extractor, and not to "
            f"be had from the hub ({first_line(error)}).{hint}"
        ) from error
    if extractor.model_input_names[0] != "input_values":
        raise PlanError(
            f"model '{name}' reads {extractor.model_input_names[0]}; only models that read waveforms (wav2vec 2.0, "
            "HuBERT, WavLM and their kin) can be trained here"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception:  # whatever a missing vocabulary makes each tokenizer raise: such a model has none yet
        tokenizer = None
    return LoadedCTC(name, extractor, tokenizer)
