"""Where recognisers come from and where they go: nets of our own from nothing or a folder, AutoModelForCTC."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from multistep.core.recipe import Recipe
from multistep.errors import PlanError, nearest
from multistep.tasks.folders import read_task, write_task
from multistep.tasks.speech import nets
from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.audio import Samples
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
CTC_USAGE = """import numpy as np
from transformers import pipeline
recognize = pipeline("automatic-speech-recognition", {model})
rate = recognize.feature_extractor.sampling_rate
samples = np.zeros(rate, np.float32)  # or, at that rate: samples, _ = soundfile.read("clip.wav", dtype="float32")
print(recognize({"raw": samples, "sampling_rate": rate}))"""


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


class CTCMaker:
    """Any AutoModelForCTC that reads waveforms (wav2vec 2.0 and its kin), with its processor.

    A model that has no vocabulary yet gets the alphabet of the training transcripts and a fresh head.
    """

    usage = CTC_USAGE
    pretrained = True
    settings: tuple[str, ...] = ("dropout", "augmentation", "layer_decay")

    def __init__(self, name: str, model: Any, processor: Processor, decoder: Decoder, *, fresh: bool) -> None:
        self._model, self._processor, self._fresh = model, processor, fresh
        self.frontend: Frontend = processor
        self.decoder, self.alphabet = decoder, decoder.alphabet
        self.architecture = str(model.config.model_type)
        self.alone = not processor.masks
        self.description = f"{name} ({type(model).__name__}), waveforms at {processor.rate} Hz, " + (
            f"a new head for {len(self.alphabet)} symbols" if fresh else f"{len(self.alphabet)} symbols"
        )
        # What chance decides in these models beyond dropout is not seeded, and would not repeat after a kill.
        model.config.apply_spec_augment = False
        model.config.layerdrop = 0.0

    @property
    def encoder(self) -> str | None:
        """The glob pattern of the convolutions on waveforms, which are usually left as they are: arXiv 2006.11477."""
        prefix = f"{self._model.base_model_prefix}.feature_extractor."
        names = [name for name, _ in self._model.named_parameters()]
        return f"{prefix}*" if any(name.startswith(prefix) for name in names) else None

    def build(self, seed: int) -> nn.Module:
        model: nn.Module = copy.deepcopy(self._model)
        if self._fresh:
            head = model.get_submodule("lm_head")
            assert isinstance(head, nn.Linear)
            with torch.no_grad():
                generator = torch.Generator().manual_seed(seed)
                head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.02)
                head.bias.zero_()
        return model

    def logits(self, model: nn.Module, frames_BTW: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        samples_BN = frames_BTW[..., 0]
        mask = None
        if self._processor.masks:
            inside = torch.arange(samples_BN.shape[1])[None, :] < lengths_B[:, None]
            mask = inside.long().to(samples_BN.device)
        logits_BTV: Tensor = model(samples_BN, attention_mask=mask).logits
        steps: Tensor = self._model._get_feat_extract_output_lengths(lengths_B)
        return logits_BTV, steps.clamp(1, logits_BTV.shape[1])

    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
            for place in ("dropout", "attention_dropout"):
                if isinstance(getattr(module, place, None), float):
                    setattr(module, place, recipe.dropout)

    def output_length(self, frames: int) -> int:
        return max(0, int(self._model._get_feat_extract_output_lengths(torch.tensor([frames]))[0]))

    def write(self, model: nn.Module, folder: Path) -> None:
        model.save_pretrained(folder)  # type: ignore[operator]
        self._processor.save(folder)
        write_task(folder, TASK, {"decoding": self.decoder.as_json()})


class Processor:
    """What a folder's feature extractor makes of samples: a waveform of mean 0 and variance 1, as it was trained on."""

    def __init__(self, extractor: Any, tokenizer: Any) -> None:
        self._extractor, self.tokenizer = extractor, tokenizer
        self.rate = int(extractor.sampling_rate)
        self.masks = bool(getattr(extractor, "return_attention_mask", False))

    def __call__(self, samples: Samples) -> NDArray[Any]:
        values = self._extractor(samples, sampling_rate=self.rate, return_tensors="np").input_values[0]
        return np.asarray(values, np.float32)[:, None]

    def save(self, folder: Path) -> None:
        from transformers import Wav2Vec2Processor

        processor: Any = Wav2Vec2Processor
        processor(feature_extractor=self._extractor, tokenizer=self.tokenizer).save_pretrained(folder)


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


class LoadedCTC:
    def __init__(self, name: str, extractor: Any, tokenizer: Any) -> None:
        self._name, self._extractor, self._tokenizer = name, extractor, tokenizer
        self.rate = int(extractor.sampling_rate)
        self.alphabet: Alphabet | None = None
        if tokenizer is not None:
            special = {t for t in tokenizer.all_special_tokens if t is not None}
            delimiter = str(getattr(tokenizer, "word_delimiter_token", None) or "|")
            self.alphabet = Alphabet.of_vocabulary(
                tokenizer.get_vocab(), int(tokenizer.pad_token_id), delimiter, special
            )

    def ready(self, texts: Sequence[str]) -> Maker:
        from transformers import AutoModelForCTC

        fresh = self.alphabet is None
        alphabet, tokenizer = self.alphabet, self._tokenizer
        more: dict[str, Any] = {}
        if alphabet is None:
            if not texts:
                raise PlanError(f"model '{self._name}' has no vocabulary, so it writes nothing yet; train it first")
            alphabet = Alphabet.of(texts)
            tokenizer = _tokenizer_of(alphabet)
            more = {"vocab_size": len(alphabet), "pad_token_id": alphabet.blank, "ignore_mismatched_sizes": True}
        try:
            with torch.random.fork_rng([]):
                model: Any = AutoModelForCTC.from_pretrained(self._name, dtype=torch.float32, **more)
        except (OSError, ValueError) as error:
            raise PlanError(f"model '{self._name}': no model for CTC ({first_line(error)})") from error
        if not hasattr(model, "_get_feat_extract_output_lengths"):
            raise PlanError(f"model '{self._name}': {type(model).__name__} does not read waveforms as wav2vec 2.0 does")
        content = read_task(self._name).get("decoding")
        decoder = Decoder.from_json(content, alphabet) if content else Decoder(alphabet)
        if texts:
            decoder = Decoder(alphabet, CharacterModel.of(texts))
        return CTCMaker(self._name, model, Processor(self._extractor, tokenizer), decoder, fresh=fresh)


def _tokenizer_of(alphabet: Alphabet) -> Any:
    """A stock tokenizer of the alphabet: its blank is the padding, its space the word delimiter."""
    import tempfile

    from transformers import Wav2Vec2CTCTokenizer

    vocabulary = {"<pad>" if i == alphabet.blank else "|" if s == " " else s: i for i, s in enumerate(alphabet.symbols)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        make: Any = Wav2Vec2CTCTokenizer
        return make(
            str(path), bos_token=None, eos_token=None, unk_token=None, pad_token="<pad>", word_delimiter_token="|"
        )


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


def first_line(error: Exception) -> str:
    """What a library's error says, without its advice over many lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
