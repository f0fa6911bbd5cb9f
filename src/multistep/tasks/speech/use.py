"""What is done with a finished recogniser: score other data, transcribe sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from multistep.backends.torch.devices import pick_device
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec
from multistep.data.splits import held_out_table
from multistep.data.table import Table
from multistep.errors import DataError
from multistep.tasks.as_trained import as_trained, columns_of
from multistep.tasks.notes import say
from multistep.tasks.prediction import Cut, Held, Prediction, Predictor, file_from
from multistep.tasks.speech.audio import SOUNDS, Samples, Unusable, read_samples, resampled
from multistep.tasks.speech.corpus import load_corpus, survey
from multistep.tasks.speech.files import FORM, held_in, listing_of, part_columns_of, part_of, path_column_of
from multistep.tasks.speech.load import load_model
from multistep.tasks.speech.models import Maker
from multistep.tasks.speech.score import listen, summed_loss, table_of

BATCH = 50  # sounds between two looks at how far it is


@dataclass(frozen=True)
class Recognizer:
    """A model that is ready to listen."""

    maker: Maker
    model: nn.Module
    device: torch.device

    @property
    def rate(self) -> int:
        """Samples a second that the model hears; others are resampled."""
        return self.maker.frontend.rate

    def transcribe(self, samples: Samples, rate: int) -> str:
        """The transcript of mono samples in -1 to 1."""
        return self.hear(samples, rate)[0]

    def hear(self, samples: Samples, rate: int) -> tuple[str, float]:
        """The transcript, and its probability under the model: of all its alignments together, given the sound."""
        try:
            frames = self.maker.frontend(resampled(np.asarray(samples, np.float32), rate, self.rate))
        except Unusable as error:
            raise DataError(f"samples: {error}") from None
        if self.maker.output_length(len(frames)) < 1:
            raise DataError("samples: too short for this model to hear anything in")
        with torch.inference_mode():
            lengths = torch.tensor([len(frames)])
            batch = torch.from_numpy(frames)[None].to(self.device).float()
            logits_BTV, steps = self.maker.logits(self.model, batch, lengths)
            log_probs = logits_BTV.float().log_softmax(-1)[0, : int(steps[0])].cpu().numpy()
            labels = self.maker.decoder(log_probs)
            spelt = torch.tensor([labels or [0]])
            loss = summed_loss(logits_BTV, steps, spelt, torch.tensor([len(labels)]), self.maker.alphabet.blank)
        return self.maker.alphabet.decode(labels), float(torch.exp(-loss[0]))


def load_recognizer(model: str) -> Recognizer:
    """The recogniser of a model folder or hub id. Raises PlanError."""
    maker = load_model(model).ready(())
    device = pick_device()
    return Recognizer(maker, maker.build(0).to(device).eval(), device)


def evaluate_model(model: str, data: DataSpec) -> Evaluation:
    """Score a model folder or hub id on data: its test split where it has one, else all of it. Raises DataError."""
    recognizer = load_recognizer(model)
    maker = recognizer.maker
    table = held_out_table(data, FORM)
    listing = listing_of(table, as_trained(data, columns_of(model), table))
    found = survey({"data": listing.rows}, maker.alphabet.case)
    corpus = load_corpus(found, maker.frontend, maker.output_length, maker.alphabet)
    say([*listing.notes, *corpus.notes])  # what could not be scored, above all
    clips = corpus.splits["data"]
    if not len(clips):
        raise DataError(f"{data}: holds no utterance; name recordings with their transcripts")
    indices = np.arange(len(clips))
    with torch.inference_mode():
        heard = listen(maker, recognizer.model, clips, indices, recognizer.device, search=True)
    return table_of(clips, indices, heard.texts, heard.loss)


def load_predictor(model: str) -> Predictor:
    """The transcripts of sound files."""
    recognizer = load_recognizer(model)

    def heard(given: str) -> Prediction | str:
        held = given.content if isinstance(given, Held) else Path(given).expanduser()
        try:
            sound = held if isinstance(held, tuple) else (_read(held, recognizer.rate), recognizer.rate)
            return Prediction(str(given), *recognizer.hear(*sound))
        except (Unusable, DataError) as error:  # one that is too short to hear anything in is such data
            return f"{given}: {error}"

    def says(paths: Sequence[str]) -> list[Prediction | str]:
        return [heard(path) for path in paths]

    def find(table: Table, data: DataSpec) -> tuple[str, ...]:
        return (path_column_of(table, data.path_column), *part_columns_of(table))

    return Predictor(says, find, _sound_in_row, unit="sound file", at_once=BATCH, files=SOUNDS)


def _read(sound: Path | bytes | Cut, rate: int) -> Samples:
    if isinstance(sound, Cut):
        return read_samples(Path(sound.file), rate, sound.start, sound.seconds)
    return read_samples(sound, rate)


def _sound_in_row(cells: Sequence[object], folder: Path) -> object:
    """The sound that a row holds or names, or the part of it that the row tells."""
    held = held_in(cells[0])
    if isinstance(held, bytes | tuple):
        return held
    file = file_from([held], folder)
    if not file or len(cells) == 1 or cells[1] in (None, ""):
        return file
    return Cut(file, *part_of(cells[1], cells[2]))
