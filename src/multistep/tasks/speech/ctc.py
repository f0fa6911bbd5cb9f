"""Recognisers of transformers: any AutoModelForCTC that reads waveforms, with its processor."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.weights import as_os_errors
from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError
from multistep.tasks.folders import read_task, write_task
from multistep.tasks.hub import draw_fresh, first_line, quietly
from multistep.tasks.labelled.linear_probe import LinearProbe
from multistep.tasks.labelled.scale import last_linear
from multistep.tasks.sending import sent
from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.audio import Samples
from multistep.tasks.speech.corpus import Frontend
from multistep.tasks.speech.decode import Decoder
from multistep.tasks.speech.language import CharacterModel
from multistep.tasks.speech.models import TASK, Maker

CTC_USAGE = """import numpy as np
from transformers import pipeline
recognize = pipeline("automatic-speech-recognition", {model})
rate = recognize.feature_extractor.sampling_rate
samples = np.zeros(rate, np.float32)  # or, at that rate: samples, _ = soundfile.read("clip.wav", dtype="float32")
print(recognize({"raw": samples, "sampling_rate": rate}))"""


class CTCMaker:
    """Any AutoModelForCTC that reads waveforms (wav2vec 2.0 and its kin), with its processor.

    A model that has no vocabulary yet gets the alphabet of the training transcripts. `fresh` are the parameters that
    it does not bring, its head's above all: they are drawn anew for each trial.
    """

    usage = CTC_USAGE
    pretrained = True
    settings: tuple[str, ...] = ("dropout", "augmentation", "layer_decay")

    def __init__(
        self, name: str, model: Any, processor: Processor, decoder: Decoder, *, fresh: Sequence[str] = ()
    ) -> None:
        self._model, self._processor, self._fresh = model, processor, fresh
        self.origin: Origin | None = Origin(name, tuple(fresh))
        self.frontend: Frontend = processor
        self.decoder, self.alphabet = decoder, decoder.alphabet
        self.architecture = str(model.config.model_type)
        self.alone = not processor.masks
        self.able = f"{last_linear(model)}.weight" not in fresh
        self.probe: LinearProbe | None = None  # what a new last layer begins as; None: drawn
        self.description = f"{name} ({type(model).__name__}), waveforms at {processor.rate} Hz, " + (
            f"{len(self.alphabet)} symbols" if self.able else f"a new head for {len(self.alphabet)} symbols"
        )
        # Masks are ours, in place of theirs: those numpy draws, whose generator no step seeds, so that they would not
        # repeat after a kill. A layer that is left out would have no gradient.
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
        draw_fresh(model, self._fresh, seed)
        if self.probe is not None:
            self.probe.put_into(model)
        return model

    def logits(self, model: nn.Module, frames_BTW: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        samples_BN = frames_BTW[..., 0]
        mask = None
        if self._processor.masks:
            inside = torch.arange(samples_BN.shape[1])[None, :] < lengths_B[:, None]
            mask = sent(inside.long(), samples_BN.device)
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
        with quietly(), as_os_errors():
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

        alphabet, tokenizer = self.alphabet, self._tokenizer
        more: dict[str, Any] = {}
        if alphabet is None:
            if not texts:
                raise PlanError(f"model '{self._name}' has no vocabulary, so it cannot transcribe yet; train it first")
            alphabet = Alphabet.of(texts)
            tokenizer = _tokenizer_of(alphabet)
            more = {"vocab_size": len(alphabet), "pad_token_id": alphabet.blank, "ignore_mismatched_sizes": True}
        model: Any
        try:
            with torch.random.fork_rng([]), quietly():
                model, found = AutoModelForCTC.from_pretrained(
                    self._name, dtype=torch.float32, output_loading_info=True, **more
                )
        except (OSError, ValueError) as error:
            raise PlanError(f"model '{self._name}': no model for CTC ({first_line(error)})") from error
        if not hasattr(model, "_get_feat_extract_output_lengths"):
            raise PlanError(f"model '{self._name}': {type(model).__name__} does not read waveforms as wav2vec 2.0 does")
        content = read_task(self._name).get("decoding")
        decoder = Decoder.from_json(content, alphabet) if content else Decoder(alphabet)
        if texts:
            decoder = Decoder(alphabet, CharacterModel.of(texts))
        lacking = {*found["missing_keys"], *(entry[0] for entry in found["mismatched_keys"])}
        if self.alphabet is None:
            lacking |= {"lm_head.weight", "lm_head.bias"}  # what it has is of another vocabulary
        fresh = tuple(sorted(name for name, _ in model.named_parameters() if name in lacking))
        if fresh and not texts:
            raise PlanError(f"model '{self._name}': the weights of {fresh[0]} are missing, so it cannot transcribe yet")
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
