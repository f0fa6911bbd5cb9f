"""Recognisers of speech as graphs: samples -> logits of characters, with the features inside."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.core.evidence.metric import Evaluation
from multistep.errors import DataError, PlanError
from multistep.exports.graph import Batch, Graph, Say
from multistep.exports.held import Held
from multistep.tasks.speech.features import FLOOR, QUIETEST, LogMel

CPU = torch.device("cpu")
MOST_SCORED = 500  # utterances of the validation split
SIZES = (3, 1, 2)  # utterances of the batches that a graph is checked by
BEST_PATH = (
    "transcripts by the graph are those of the likeliest path; `multistep predict` also searches with its character "
    "model, which is not part of the graph"
)


class LogMelGraph(nn.Module):
    """`LogMel` in products and convolutions, so that it can be part of a graph; without its rounding to 16 bits."""

    waves: Tensor
    bank: Tensor

    def __init__(self, features: LogMel) -> None:
        super().__init__()
        self.features = features
        size, window = features.fft, features.window
        left = (size - window) // 2  # where torch.stft lays a window that is shorter than what is transformed
        hann_W = torch.hann_window(window, dtype=torch.float64)
        times_W = torch.arange(left, left + window, dtype=torch.float64)
        turns_FW = 2 * math.pi / size * torch.arange(size // 2 + 1, dtype=torch.float64)[:, None] * times_W
        self._left = left
        waves = torch.cat((turns_FW.cos() * hann_W, turns_FW.sin() * hann_W))
        self.register_buffer("waves", waves[:, None].float())
        self.register_buffer("bank", features._bank.clone())

    def forward(self, samples_BN: Tensor, lengths_B: Tensor) -> Tensor:
        """Features (B, 1 + N / hop, mels) of utterances that are `lengths_B` samples long."""
        inside_BN = torch.arange(samples_BN.shape[1])[None, :] < lengths_B[:, None]
        x_BN = samples_BN * inside_BN
        power_B1 = x_BN.square().sum(1, keepdim=True) / lengths_B[:, None]
        x_BN = x_BN / power_B1.sqrt().clamp(min=QUIETEST)
        half, left = self.features.fft // 2, self._left
        right = self.features.fft - left - self.features.window
        x_B1N = F.pad(x_BN, (half - left, half - right))[:, None]
        found_BFT = F.conv1d(x_B1N, self.waves, stride=self.features.hop)
        real_BFT, imaginary_BFT = found_BFT.chunk(2, 1)
        power_BTF = (real_BFT.square() + imaginary_BFT.square()).mT
        return (power_BTF @ self.bank / self.features.window + FLOOR).log()


class _Recogniser(nn.Module):
    def __init__(self, module: nn.Module, features: LogMel) -> None:
        super().__init__()
        self.module, self.features = module, LogMelGraph(features)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames_BTM = self.features(samples, lengths)
        frames_B = torch.div(lengths, self.features.features.hop, rounding_mode="floor") + 1
        logits_BTV, steps_B = self.module(frames_BTM, frames_B)
        return logits_BTV, steps_B


def recogniser(model: str, held: Held) -> Graph:
    """One of our own nets. Raises PlanError for models of transformers."""
    from multistep.data.splits import held_out_table
    from multistep.tasks.speech.audio import Unusable
    from multistep.tasks.speech.corpus import load_corpus, samples_of, survey
    from multistep.tasks.speech.decode import best_path
    from multistep.tasks.speech.files import FORM, listing_of
    from multistep.tasks.speech.load import load_model
    from multistep.tasks.speech.score import summed_loss, table_of
    from multistep.tasks.speech.splits import read_splits

    maker = load_model(model).ready(())
    features = maker.frontend
    if not isinstance(features, LogMel):
        raise PlanError(
            f"{model}: a recogniser of transformers that reads waveforms; its export is optimum's: "
            f"`optimum-cli export onnx --model {model} --task automatic-speech-recognition FOLDER`"
        )
    rows = (
        read_splits(held.data).of("validation")
        if held.split
        else listing_of(held_out_table(held.data, FORM), held.data).rows
    )
    found = survey({"data": rows[:MOST_SCORED]}, maker.alphabet.case)
    sounds = []
    for row, _ in found.rows["data"]:
        try:
            sounds.append(np.asarray(samples_of(row, features.rate), np.float32))
        except Unusable:
            continue
    if not sounds:
        raise DataError(f"{held.data}: holds no utterance; name recordings with their transcripts")
    module = _Recogniser(maker.build(0).to(CPU).eval(), features)
    clips = load_corpus(found, features, maker.output_length, maker.alphabet).splits["data"]
    if len(clips) != len(sounds):
        raise DataError(f"{held.data}: some utterances cannot be scored; leave them out, or name others with --data")

    def batch(chosen: NDArray[np.int64]) -> Batch:
        longest = max(len(sounds[i]) for i in chosen)
        samples = np.stack([np.pad(sounds[i], (0, longest - len(sounds[i]))) for i in chosen])
        return torch.from_numpy(samples), torch.tensor([len(sounds[i]) for i in chosen])

    def score(say: Say) -> Evaluation:
        texts, losses = [], []
        for i in range(len(sounds)):
            samples, lengths = batch(np.array([i]))
            logits_BTV = say((samples, lengths)).float()
            steps = torch.tensor([maker.output_length(features.length(int(lengths[0])))])
            labels, counts = clips.padded_labels(np.array([i]))
            losses.append(float(summed_loss(logits_BTV, steps, labels, counts, maker.alphabet.blank)[0]))
            own = logits_BTV.log_softmax(-1)[0, : int(steps[0])].numpy()
            texts.append(maker.alphabet.decode(best_path(own, maker.alphabet)))
        return table_of(clips, np.arange(len(sounds)), texts, np.array(losses))

    starts = np.cumsum((0, *SIZES))
    chosen = [np.arange(a, b) % len(sounds) for a, b in itertools.pairwise(starts)]
    alphabet = maker.alphabet.as_json()
    about = {"task": "speech-recognition", "rate": features.rate, "channels": 1, "values": "-1 to 1", **alphabet}
    return Graph(
        module,
        {"samples": {0: "batch", 1: "samples"}, "lengths": {0: "batch"}},
        ("logits", "steps"),
        [batch(some) for some in chosen],
        about,
        "speech.py",
        score=score,
        metric=held.metric,
        notes=(BEST_PATH,),
    )
