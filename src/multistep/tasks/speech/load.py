"""Where recognisers come from: folders of our own nets, folders and hub ids of models of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file
from torch import Tensor

from multistep.errors import PlanError, nearest
from multistep.tasks.folders import read_task
from multistep.tasks.hub import first_line, no_model, why_not_had
from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.ctc import LoadedCTC
from multistep.tasks.speech.decode import Decoder
from multistep.tasks.speech.features import LogMel
from multistep.tasks.speech.language import CharacterModel
from multistep.tasks.speech.models import PREFIX, PRESETS, WEIGHTS, Maker, NetMaker
from multistep.tasks.speech.nets import NetConfig


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
                found = load_file(folder / WEIGHTS)
                weights = {key.removeprefix(PREFIX): tensor for key, tensor in found.items()}
            except Exception as error:  # safetensors raises its own kind, and OSError
                raise PlanError(f"model: {folder} is damaged ({first_line(error)}); export it again") from error
            return LoadedNet(name, content, weights)
        if not (folder / "config.json").is_file():
            raise PlanError(no_model(folder, "holds neither multistep.json nor config.json; name a model folder"))
    elif name.count("/") > 1 or name.startswith((".", "/")):
        raise PlanError(f"model: {name}: no such folder")
    from transformers import AutoFeatureExtractor, AutoTokenizer

    try:
        extractor = AutoFeatureExtractor.from_pretrained(name)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        hint = nearest(name, PRESETS)
        raise PlanError(
            f"model '{name}': no preset (auto, {', '.join(PRESETS)}), no folder with a feature extractor, and not to "
            f"be had from the hub ({why_not_had(name, error)}).{hint}"
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
