"""The speech nets as models of transformers; `multistep.hf` registers them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutomaticSpeechRecognitionPipeline, PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.wav2vec2.processing_wav2vec2 import Wav2Vec2Processor
from transformers.pipelines.automatic_speech_recognition import rescale_stride
from transformers.utils.hub import cached_file

from multistep.tasks.folders import TASK_FILE, write_task
from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.audio import read_samples, resampled
from multistep.tasks.speech.decode import Decoder
from multistep.tasks.speech.features import LogMel
from multistep.tasks.speech.models import MODEL_TYPE, TASK
from multistep.tasks.speech.nets import STRIDE, NetConfig, SpeechNet, make_net
from multistep.tasks.speech.score import summed_loss

DEFAULT_NET = {"kind": "deepspeech", "mels": 64, "symbols": 2, "layers": 2, "width": 96}
DEFAULT_FEATURES = {"rate": 16_000, "mels": 64}
DEFAULT_ALPHABET: dict[str, Any] = {"symbols": ["", " "], "blank": 0, "case": "lower"}
NEVER = -1e4  # a logit that nothing comes back from


class MultistepSpeechConfig(PreTrainedConfig):
    """The sizes of a net as `NetConfig` has them, its features and the alphabet that it writes."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        features: dict[str, Any] | None = None,
        alphabet: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alphabet = alphabet or DEFAULT_ALPHABET
        self.features = features or DEFAULT_FEATURES
        self.net = {**DEFAULT_NET, **(net or {}), "symbols": len(self.alphabet["symbols"])}
        self.vocab_size = self.net["symbols"]
        self.pad_token_id = self.alphabet["blank"]
        self.inputs_to_logits_ratio = STRIDE * LogMel.from_json(self.features).hop  # samples a step of the output


class MultistepForCTC(PreTrainedModel):
    """A speech net: log-mel features, as its feature extractor makes them, -> logits of characters and the blank.

    `decoder` writes transcripts from them as training scored them: a search over prefixes, with a character model.
    """

    config_class = MultistepSpeechConfig
    main_input_name = "input_features"
    input_modalities = ["audio"]  # noqa: RUF012

    def __init__(self, config: MultistepSpeechConfig) -> None:
        super().__init__(config)
        self.net = make_net(NetConfig.from_json(config.net))
        self.decoder = Decoder(Alphabet.from_json(config.alphabet))
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As of every model; the character model of the search is read too where the folder has one."""
        found = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = found[0] if isinstance(found, tuple) else found
        path = cached_file(
            pretrained_model_name_or_path,
            TASK_FILE,
            _raise_exceptions_for_missing_entries=False,
            **{key: kwargs[key] for key in ("cache_dir", "revision", "token", "local_files_only") if key in kwargs},
        )
        if path is not None:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            model.decoder = Decoder.from_json(content["decoding"], Alphabet.from_json(content["alphabet"]))
        return found

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write a folder that `multistep` reads too."""
        super().save_pretrained(save_directory, **kwargs)
        content = {key: getattr(self.config, key) for key in ("net", "features", "alphabet")}
        write_task(Path(save_directory), TASK, {**content, "decoding": self.decoder.as_json()})

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> CausalLMOutput | tuple[Tensor, ...]:
        """(B, T, M), the mask of frames that are an utterance's own (B, T) -> logits (B, T / 2, V).

        Behind an utterance's end the blank is certain. With labels (B, L; -100 for none) also the nats of a transcript,
        the mean over utterances.
        """
        every = torch.full((len(input_features),), input_features.shape[1])
        lengths_B = every if attention_mask is None else attention_mask.sum(-1).cpu()
        logits_BTV, steps_B = self.net(input_features, lengths_B)
        loss = None
        if labels is not None:
            own = labels >= 0
            blank = self.config.pad_token_id
            spelt = labels.masked_fill(~own, blank).cpu()
            loss = summed_loss(logits_BTV, steps_B, spelt, own.sum(-1).cpu(), blank).mean()
        outside = torch.arange(logits_BTV.shape[1])[None, :] >= steps_B[:, None]
        silence_V = torch.full((logits_BTV.shape[2],), NEVER)
        silence_V[self.config.pad_token_id] = 0.0
        silence_V = silence_V.to(logits_BTV)
        logits_BTV = torch.where(outside.to(logits_BTV.device)[..., None], silence_V, logits_BTV)
        if return_dict is False:
            return (logits_BTV,) if loss is None else (loss, logits_BTV)
        return CausalLMOutput(loss=loss, logits=logits_BTV)

    def transcribe(self, logits_TV: np.ndarray[Any, Any] | Tensor) -> tuple[str, float]:
        """The transcript of one utterance's logits, and its probability: of all its alignments together."""
        logits = torch.as_tensor(logits_TV, device="cpu").float()
        labels = self.decoder(logits.log_softmax(-1).numpy())
        alphabet = self.decoder.alphabet
        counts, steps = torch.tensor([len(labels)]), torch.tensor([len(logits)])
        loss = summed_loss(logits[None], steps, torch.tensor([labels or [0]]), counts, alphabet.blank)
        return alphabet.decode(labels), float(torch.exp(-loss[0]))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """First weights as training from nothing has them: of what a folder does not bring."""
        if isinstance(module, SpeechNet):
            module.initialise(int(torch.randint(2**31, ()).item()))
            module.mean.zero_()
            module.scale.fill_(1.0)


class MultistepFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel features as the net was trained on: `input_features` (B, T, M), and the mask of frames (B, T)."""

    model_input_names = ["input_features", "attention_mask"]  # noqa: RUF012

    def __init__(
        self, sampling_rate: int = 16_000, feature_size: int = 64, padding_value: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, return_tensors: str | None = None, **_: Any
    ) -> BatchFeature:
        """Of mono samples in -1 to 1, or a list of such. Another rate is resampled."""
        several = raw_speech if isinstance(raw_speech, list | tuple) and np.ndim(raw_speech[0]) else [raw_speech]
        features = LogMel(self.sampling_rate, self.feature_size)
        frames = [
            features(resampled(np.asarray(one, np.float32), sampling_rate or self.sampling_rate, self.sampling_rate))
            for one in several
        ]
        longest = max(map(len, frames))
        padded = np.zeros((len(frames), longest, self.feature_size), np.float32)
        mask = np.zeros((len(frames), longest), np.int64)
        for i, one in enumerate(frames):
            padded[i, : len(one)], mask[i, : len(one)] = one, 1
        return BatchFeature({"input_features": padded, "attention_mask": mask}, tensor_type=return_tensors)


class MultistepSpeechProcessor(Wav2Vec2Processor):
    """The feature extractor, and a tokenizer of the alphabet."""


class MultistepSpeechPipeline(AutomaticSpeechRecognitionPipeline):
    """The pipeline of transformers; a speech net of `multistep` hears and writes in it as in `multistep predict`.

    Files are read by soundfile and resampled by soxr, not by ffmpeg and torchaudio; transcripts are searched for with
    the character model, and come with their probability. With timestamps it is the best path.
    """

    @property
    def _own(self) -> bool:
        return isinstance(self.model, MultistepForCTC)

    def preprocess(self, inputs: Any, **kwargs: Any) -> Iterator[Any]:
        if self._own:
            extractor: Any = self.feature_extractor
            rate = extractor.sampling_rate
            if isinstance(inputs, str | Path) and not str(inputs).startswith(("http://", "https://")):
                inputs = read_samples(Path(inputs).expanduser(), rate)
            elif (
                isinstance(inputs, Mapping)
                and "stride" not in inputs
                and inputs.get("sampling_rate") not in (None, rate)
            ):
                samples = np.asarray(inputs["raw"] if "raw" in inputs else inputs["array"], np.float32)
                inputs = resampled(samples.mean(0) if samples.ndim == 2 else samples, inputs["sampling_rate"], rate)
        yield from super().preprocess(inputs, **kwargs)

    def _forward(self, model_inputs: Any, return_timestamps: Any = False, **kwargs: Any) -> Any:
        if not self._own or return_timestamps:
            return super()._forward(model_inputs, return_timestamps=return_timestamps, **kwargs)
        stride, is_last = model_inputs.pop("stride", None), model_inputs.pop("is_last")
        names = ("input_features", "attention_mask")
        found = {"logits": self.model(**{name: model_inputs.pop(name) for name in names}).logits}
        if stride is not None:
            one = isinstance(stride, tuple)
            scaled = rescale_stride([stride] if one else stride, 1 / self._align_to)
            found["stride"] = scaled[0] if one else scaled
        return {"is_last": is_last, **found, **model_inputs}

    def postprocess(self, model_outputs: Any, return_timestamps: Any = None, **kwargs: Any) -> Any:
        if not self._own or return_timestamps:
            return super().postprocess(model_outputs, return_timestamps=return_timestamps, **kwargs)
        parts = []
        for outputs in model_outputs:
            logits = outputs["logits"].float().squeeze(0)
            if outputs.get("stride") is not None:
                total, left, right = outputs["stride"]
                logits = logits[left : total - right]
            parts.append(logits)
        model: Any = self.model
        text, probability = model.transcribe(torch.cat(parts))
        return {"text": text, "probability": probability}
