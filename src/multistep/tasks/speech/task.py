"""Speech recognition: what the engine and the torch learner need to know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.domain import Batch
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.backends.torch.weights import mark_of
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.tasks import TASKS
from multistep.core.values.trial import Facts
from multistep.core.values.understood import Part
from multistep.data.names import SPLITS
from multistep.engine.checkpoints import sha256
from multistep.engine.learner import NO_FORM, Exhibit, Learner, Readiness, Split
from multistep.errors import PlanError
from multistep.tasks.begun import lies_at
from multistep.tasks.machine import device_name, versions_of
from multistep.tasks.order import LengthOrder, sample_of
from multistep.tasks.pretrained.choose import Need
from multistep.tasks.pretrained.script import kind_of
from multistep.tasks.pretrained.settle import Settled, seconds_of, settle
from multistep.tasks.pretrained.timed import tuning_speed
from multistep.tasks.recipes import refuse_model
from multistep.tasks.reckoned import Costs
from multistep.tasks.sending import device_room, sent
from multistep.tasks.speech.alphabet import Alphabet, Case, frames_needed, has_spaces
from multistep.tasks.speech.audio import commonest_rate
from multistep.tasks.speech.augment import Draws, FeatureAugmentation, WaveAugmentation, stretched
from multistep.tasks.speech.baseline import Baseline, fit_baseline, score
from multistep.tasks.speech.corpus import Clips, Corpus, Survey, load_corpus, survey
from multistep.tasks.speech.ctc import CTCMaker
from multistep.tasks.speech.decode import Decoder
from multistep.tasks.speech.exhibits import exhibits_of
from multistep.tasks.speech.features import LogMel, default_features
from multistep.tasks.speech.language import CharacterModel
from multistep.tasks.speech.load import load_model
from multistep.tasks.speech.models import PRESETS, Maker, NetMaker
from multistep.tasks.speech.nets import NetConfig
from multistep.tasks.speech.preset import (
    WORK,
    SpeechFacts,
    batch_size,
    choose_shape,
    costs_of_utterance,
    default_recipe,
    gentle_steps,
)
from multistep.tasks.speech.probe import probed
from multistep.tasks.speech.score import listen, summed_loss, table_of
from multistep.tasks.speech.splits import Splits, read_splits
from multistep.tasks.speech.timed import net_speed
from multistep.tasks.speeds import operations
from multistep.tasks.understood import LOOKED_AT, told

MOST_SAMPLED = 400  # utterances of the validation split that each look scores
FRAMES_A_SECOND = 50.0  # of wav2vec 2.0
SIZES_OF_MODEL = ("parameters", "layers", "width", "heads", "context", "vocabulary")
USUAL_METRICS, SPACELESS_METRICS = ("wer", "cer", "loss"), ("cer", "wer", "loss")


class SpeechDomain:
    """One phase's utterances and model. Implements backends.torch.domain.Domain."""

    def __init__(self, corpus: Corpus, maker: Maker, batch_size: int) -> None:
        self._maker, self.clips = maker, dict(corpus.splits)
        self.train = self.clips["train"]
        self._order = LengthOrder(self.train.lengths, batch_size)
        self._augment: FeatureAugmentation | WaveAugmentation = WaveAugmentation()
        if isinstance(maker.frontend, LogMel):
            self._augment = FeatureAugmentation(maker.frontend, statistics(self.train)[0])
        self._strength = 0.0
        # Who knows nothing yet writes nothing at all for longer if no sound is twice the same: with augmentation from
        # the start the blanks were left after 15 s of training, after 5 s with a gentle start
        # (docs/appendix/experiments.md).
        # Counted in utterances, since the batch may change later on.
        self._gentle = 0 if maker.pretrained else gentle_steps(len(self.train)) * batch_size
        self._shortest: dict[int, int] = {}
        self._heard: tuple[tuple[float, ...], tuple[str, ...], Evaluation] | None = None

    # Training ---------------------------------------------------------------------------------------

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        refuse_model(model)
        return self._maker.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self._maker.origin

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        if recipe.label_smoothing:
            raise PlanError(f"recipe.label_smoothing is {recipe.label_smoothing:g}, but CTC has none; leave it out")
        if recipe.context or recipe.resolution:
            what = "context" if recipe.context else "resolution"
            raise PlanError(f"recipe.{what} is not for speech, which is read whole; leave it out")
        self._maker.configure(model, recipe)
        self._strength = recipe.augmentation
        return 1

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        """Frames on the device; their lengths, the labels and their numbers stay on the CPU, where CTC wants them."""
        if self.train.frames.device.type != device.type and self.train.frames.nbytes <= device_room(device):
            self.train = replace(self.train, frames=self.train.frames.to(device))
        indices, epochs = self._order.indices(position, size, seed)
        frames, lengths = self.train.gather(indices)
        frames = sent(frames, device).float()
        strength = self._strength * min(1.0, position / self._gentle) if self._gentle else self._strength
        if strength:
            drawn = Draws(seed, epochs, indices)
            least = torch.tensor([self._least(i) for i in indices])
            new = stretched(lengths, drawn, strength, least)
            frames, lengths = self._augment(frames, lengths, new, drawn, strength), new
        return frames, lengths, *self.train.padded_labels(indices)

    def _least(self, index: int) -> int:
        """The fewest frames that hold a training transcript."""
        needed = frames_needed(self.train.labels[index])
        if needed not in self._shortest:
            low, high = 0, int(self.train.lengths[index])  # too short, and long enough
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if self._maker.output_length(middle) >= needed else (middle, high)
            self._shortest[needed] = high
        return self._shortest[needed]

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        frames, lengths, labels, counts = batch
        logits_BTV, steps = self._maker.logits(model, frames[:, : int(lengths.max())], lengths)
        losses = summed_loss(logits_BTV, steps, labels, counts, self._maker.alphabet.blank)
        return losses.sum(), sent(counts.sum(), losses.device)

    # Scores -----------------------------------------------------------------------------------------

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        """A sample is heard by the best path, which is quick; a whole split by beam search, as `predict` does."""
        clips = self.clips[split]
        indices = self.sample(split) if sample else np.arange(len(clips))
        heard = listen(self._maker, model, clips, indices, device, search=not sample)
        table = table_of(clips, indices, heard.texts, heard.loss)
        if split == "test":
            self._heard = (mark_of(model), heard.texts, table)
        return table

    def sample(self, split: Split) -> NDArray[np.int64]:
        return sample_of(len(self.clips[split]), MOST_SAMPLED)

    @cached_property
    def _baseline(self) -> Baseline:
        return fit_baseline(self.clips["train"], self.clips["validation"])

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._baseline.name, score(self._baseline, self.clips[split])

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        """Of the test split, which has just been heard; without one, of the validation split."""
        split: Split = "test" if len(self.clips["test"]) else "validation"
        clips = self.clips[split]
        if self._heard is not None and self._heard[0] == mark_of(model):
            return exhibits_of(clips, np.arange(len(clips)), *self._heard[1:])
        indices = np.arange(len(clips)) if len(clips) <= MOST_SAMPLED else self.sample(split)
        heard = listen(self._maker, model, clips, indices, device, search=True)
        return exhibits_of(clips, indices, heard.texts, table_of(clips, indices, heard.texts, heard.loss))

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self._maker.write(model, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return "+".join(sha256(file) for file in sorted(folder.glob("*.safetensors")))


def statistics(train: Clips) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation of each band over all training frames (on the CPU)."""
    frames = train.frames.cpu()
    count = total = squares = torch.zeros(())
    for part in torch.split(frames, 100_000):
        wide = part.double()
        count, total, squares = count + len(wide), total + wide.sum(0), squares + wide.square().sum(0)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(1e-6).sqrt()
    return mean.float(), (1.0 / deviation).float()


class SpeechWorkshop:
    """Opens the phases of a speech-recognition plan. Implements engine.learner.Workshop."""

    def __init__(self) -> None:
        self._splits: dict[DataSpec, Splits] = {}
        self._surveys: dict[tuple[DataSpec, Case], Survey] = {}  # transcripts are spelt as the model wants them
        self._read: tuple[DataSpec, Corpus] | None = None  # the last phase's, which is mostly the next one's too
        self._maker: Maker | None = None
        self._settled = Settled((), left_open=False)

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        device = pick_device()
        if self._maker is None:
            self._settled = settle(plan, lambda: self._need(plan, device))
            self._maker = self._make(self._settled.applied(plan), device)
        maker = self._maker
        data = _data_of(plan, phase)
        corpus = self._corpus(data, maker)
        if isinstance(maker, NetMaker):
            maker.normalise(*statistics(corpus.splits["train"]))
        given = dict(plan.phase(phase).recipe)
        own = isinstance(maker, NetMaker)
        encoder = maker.encoder if isinstance(maker, CTCMaker) else None
        heard = _facts([self._survey(data, maker.alphabet.case)])
        probe = probed(maker, corpus, plan, given)
        if isinstance(maker, CTCMaker):
            maker.probe = probe
        parameters = sum(p.numel() for p in maker.build(plan.seed).parameters())
        recipe = default_recipe(
            given,
            heard,
            pretrained=maker.pretrained,
            own=own,
            frozen=encoder,
            parameters=parameters,
        )
        assert recipe.batch_size is not None, "the preset has one"
        domain = SpeechDomain(corpus, maker, recipe.batch_size)
        train = corpus.splits["train"]
        facts = Facts(
            parameters=parameters,
            train_examples=len(train),
            tokens_per_example=max(1, round(train.characters() / len(train))),
            sample_tokens=corpus.splits["validation"].characters(domain.sample("validation")),
            validation_tokens=corpus.splits["validation"].characters(),
            test_tokens=corpus.splits["test"].characters(),
            pretrained=maker.pretrained,
            device=device_name(device),
            description=maker.description,
            notes=(*self._settled.notes, *corpus.notes, *([probe.note] if probe else [])),
            able=probe is not None or maker.able,
            settings=maker.settings,
            optimizers=usable_optimizers(),
            usage=maker.usage,
            loss_unit=TASKS["speech-recognition"].loss_unit,
        )
        facts = told(
            facts,
            plan,
            phase,
            recipe,
            splits=[Part(name, len(corpus.splits[name]), "utterances") for name in SPLITS],
            models=self._settled.names,
            texts=train.texts[:LOOKED_AT],
            costs=Costs(WORK, costs_of_utterance(facts.parameters, heard)) if own else None,
        )
        # The alphabet may be learnt from other phases' transcripts, which must not change under a resumed run either.
        letters = hashlib.blake2b("\n".join(maker.alphabet.symbols).encode(), digest_size=8).hexdigest()
        metrics = USUAL_METRICS if has_spaces(train.texts) else SPACELESS_METRICS
        rate_open = "learning_rate" not in given and not maker.pretrained
        models = self._settled.record
        ready = Readiness(facts, recipe, rate_open, f"{corpus.fingerprint}-{letters}", metrics, models)
        return TorchLearner(domain, should_stop, device), ready

    def _survey(self, data: DataSpec, case: Case) -> Survey:
        if (data, case) not in self._surveys:
            splits = self._splits[data] = self._splits.get(data) or read_splits(data)
            found = survey({name: splits.of(name) for name in SPLITS}, case)
            self._surveys[data, case] = replace(found, notes=(*splits.notes, *found.notes))
        return self._surveys[data, case]

    def _corpus(self, data: DataSpec, maker: Maker) -> Corpus:
        if self._read is None or self._read[0] != data:
            found = self._survey(data, maker.alphabet.case)
            self._read = data, load_corpus(found, maker.frontend, maker.output_length, maker.alphabet)
        return self._read[1]

    def _need(self, plan: Plan, device: torch.device) -> Need:
        """What a run has to offer a pretrained recogniser, which makes a frame of a fiftieth of a second."""
        found = [
            self._survey(data, "lower") for data in dict.fromkeys(_data_of(plan, i) for i in range(plan.phase_count))
        ]
        texts = [text for one in found for text in one.texts]
        frames = FRAMES_A_SECOND * sum(one.seconds for one in found) / max(1, len(texts))
        rate = tuning_speed(plan)
        return Need(plan.task, kind_of(texts), len(texts), frames, seconds_of(plan), rate)

    def _make(self, plan: Plan, device: torch.device) -> Maker:
        """The model that all phases train; an alphabet from nothing is that of all their training transcripts."""
        loaded = None
        if plan.model.name not in ("auto", *PRESETS):
            given = [name for name in SIZES_OF_MODEL if getattr(plan.model, name) is not None]
            if given:
                raise PlanError(
                    f"model.{given[0]}: '{plan.model.name}' has its own, which cannot be changed; leave it out"
                )
            loaded = load_model(lies_at(plan.model.name))
        case: Case = loaded.alphabet.case if loaded and loaded.alphabet else "lower"
        sources = dict.fromkeys(_data_of(plan, i) for i in range(plan.phase_count))
        found = [self._survey(data, case) for data in sources]
        texts = [text for one in found for text in one.texts]
        if loaded:
            return loaded.ready(texts)
        features = default_features(commonest_rate(rate for one in found for rate in one.rates))
        decoder = Decoder(Alphabet.of(texts), CharacterModel.of(texts))
        heard = _facts(found)

        def sized(rate: float) -> NetConfig:
            shape = choose_shape(plan.model, heard, plan, rate=rate)
            return NetConfig(shape.kind, features.mels, len(decoder.alphabet), shape.layers, shape.width)

        def measured(rate: float, seconds: float) -> float:
            return net_speed(sized(rate), batch_size(heard), heard.seconds / max(1, heard.utterances), seconds)

        return NetMaker(sized(operations(WORK, plan, measured)), features, decoder)

    def versions(self) -> Mapping[str, str]:
        return versions_of("multistep", "torch", "safetensors", "numpy", "soundfile", "soxr", "jiwer")


def _facts(found: Sequence[Survey]) -> SpeechFacts:
    return SpeechFacts(sum(one.seconds for one in found), sum(len(one.texts) for one in found))


def _data_of(plan: Plan, phase: int) -> DataSpec:
    data = plan.phase(phase).data
    assert data is not None, "a plan has data"
    return data
