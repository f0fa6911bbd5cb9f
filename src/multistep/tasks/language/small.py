"""The small nets as networks of a phase: a vocabulary from the training split, folders, texts as ids."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.weights import as_os_errors
from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError
from multistep.tasks.folders import read_task
from multistep.tasks.labelled.labels import PROBLEMS, Labels
from multistep.tasks.labelled.scale import Scale, rescale
from multistep.tasks.language import nets
from multistep.tasks.language.baseline import is_spaceless
from multistep.tasks.language.counts import leanings_of, occurrences
from multistep.tasks.language.encode import Encoded
from multistep.tasks.language.examples import Examples
from multistep.tasks.language.nets import BAG, NOTHING, UNKNOWN, Reader, TextNet, TextNetConfig

TASK, MODEL_TYPE = "text-classification", "multistep-text"
SOURCE, WEIGHTS, VOCABULARY = "net.py", "model.safetensors", "vocabulary.txt"
MOST_NGRAMS, MOST_WORDS = 100_000, 20_000  # n-grams: of each length of them, short and long
LEAST_TEXTS, FEW_TEXTS = 2, 500  # what occurs in one text alone tells of that text; of few texts all is taken
MOST_LEANINGS = 20_000_000  # n-grams times classes: beyond, a bag begins at random alone
MOST_HIDDEN = {BAG: 0.95, nets.CNN: 0.5}  # of n-grams, or words, at full augmentation
USAGE = """import runpy
folder = {model}
module = runpy.run_path(folder + "/net.py")
net = module["load"](folder)
logits = net(*net.read(TEXTS))[0]
print(RESULT)"""
RESULTS = {
    "class": 'module["about"](folder)["names"][logits.argmax()]',
    "classes": '[name for name, logit in zip(module["about"](folder)["names"], logits) if logit > 0]',
    "number": "logits.item()",
}


class SmallNetwork:
    """A bag or a convolutional net, from nothing or from a folder. Implements models.Network."""

    mask = UNKNOWN
    tokenizer = None
    pad = NOTHING
    settings: tuple[str, ...] = ("dropout",)
    longest: int | None = None

    def __init__(
        self,
        config: TextNetConfig,
        vocabulary: Sequence[str],
        weights: Sequence[float],
        labels: Labels,
        scale: Scale,
        trained: TextNet | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.config, self.scale, self.notes, self._trained = config, scale, notes, trained
        self._labels = labels
        self._leanings: Tensor | None = None
        self._counted: tuple[Sequence[str], Encoded] | None = None  # training texts that were encoded to be counted
        self._reader = Reader(config, vocabulary)
        self._weights = torch.tensor([0.0, 0.0, *weights])
        self.name = config.kind
        self.pretrained = trained is not None
        self.origin = Origin(None) if trained is not None else None
        of = "n-grams" if config.kind == BAG else "characters" if config.spaceless else "words"
        self.description = f"{config.kind}, {len(vocabulary):,} {of}, width {config.width}"
        texts = '"It is raining.", "It is dry."' if config.pairs else '"It is as good as it can be."'
        self.usage = USAGE.replace("TEXTS", texts).replace("RESULT", RESULTS[labels.kind])
        self.context = config.longest
        self.mark = f"{config}\0{''.join(vocabulary)}"

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in nets.make(self.config).parameters())

    def begin_at_naive_bayes(self, train: Examples) -> None:
        encoded = self.encode(train.texts, None)
        self._counted = train.texts, encoded
        self._leanings = leanings_of(encoded, train.labels, self._labels, self.scale, self.config.vocabulary)

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None) -> Encoded:
        if self._counted is not None and self._counted[0] is texts:
            return self._counted[1]
        ids: list[int] = []
        types: list[int] = []
        words: list[int] = []
        lengths: list[int] = []
        cut = 0
        for i, text in enumerate(texts):
            parts = [self._reader.ids(text), *([self._reader.ids(seconds[i])] if seconds is not None else [])]
            cut += any(len(part) > self.config.longest for part in parts)
            parts = [part[: self.config.longest] for part in parts]
            for second, part in enumerate(parts):
                ids += part
                types += [second] * len(part)
            lengths.append(sum(map(len, parts)))
            words += range(lengths[-1])
        starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        return Encoded(np.array(ids, np.int32), np.array(words, np.int32), np.array(types, np.int8), starts, cut)

    def build(self, seed: int) -> nn.Module:
        with torch.random.fork_rng([]):  # torch draws first weights of its own, which are drawn anew
            net = nets.initialise(nets.make(self.config), seed)
        if self._trained is None:
            if isinstance(net, nets.Bag):
                net.weights.copy_(self._weights)
                if self._leanings is not None:
                    with torch.no_grad():  # the smallest change of the embeddings that gives these logits
                        net.embedding.weight.add_(self._leanings @ torch.linalg.pinv(net.head.weight.T))
            return net
        known = self._trained.state_dict()
        same = self._trained.config.outputs == self.config.outputs and not self.notes
        net.load_state_dict({k: v for k, v in known.items() if same or not k.startswith("head.")}, strict=same)
        if same:
            with torch.no_grad():
                rescale(net, self.scale.undone, ())
        return net

    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        """Dropout, and for the bag how much of a text is hidden: it does so by itself, on its weights."""
        assert isinstance(model, nets.Bag | nets.Cnn)
        model.dropout.p = recipe.dropout
        if isinstance(model, nets.Bag):
            model.thin.p = MOST_HIDDEN[BAG] * recipe.augmentation
        else:
            model.embedding_dropout.p = 0.6 * recipe.dropout

    def hidden(self, recipe: Recipe) -> float:
        """The share of words that batches come without: of the bag none, since it hides n-grams by itself."""
        return 0.0 if self.config.kind == BAG else MOST_HIDDEN[nets.CNN] * recipe.augmentation

    def logits(self, model: nn.Module, tokens_BT: Tensor, inside_BT: Tensor, types_BT: Tensor) -> Tensor:
        logits: Tensor = model(tokens_BT, types_BT)
        return logits

    def about(self) -> dict[str, Any]:
        """What lies beside the weights, for `nets.load` above all."""
        return {"net": asdict(self.config)}

    def write(self, model: nn.Module, folder: Path) -> None:
        """Weights, vocabulary, and the source that both are used with."""
        tensors = {
            nets.PREFIX + name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in model.state_dict().items()
        }
        for name in ("head.weight", "head.bias") if self.scale != Scale() else ():
            tensors[nets.PREFIX + name].mul_(self.scale.deviation)
        if self.scale != Scale():
            tensors[f"{nets.PREFIX}head.bias"].add_(self.scale.mean)
        with as_os_errors():
            (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        shutil.copyfile(nets.__file__, folder / SOURCE)
        (folder / VOCABULARY).write_bytes("".join(f"{key}\n" for key in self._reader.vocabulary).encode())
        for name, content in hugging_face_files(self.config, self._labels).items():
            (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def hugging_face_files(config: TextNetConfig, labels: Labels) -> dict[str, dict[str, Any]]:
    """What transformers reads beside weights and vocabulary, once `multistep.hf` has told it of the nets.

    Written here, since transformers takes seconds to import, and a run of a small net needs none of it.
    """
    net = asdict(config)
    names = dict(enumerate(labels.names or ("value",)))
    described = {
        "architectures": ["MultistepForSequenceClassification"],
        "model_type": MODEL_TYPE,
        "problem_type": PROBLEMS[labels.kind],
        "dtype": "float32",
        "id2label": {str(i): name for i, name in names.items()},
        "label2id": {name: i for i, name in names.items()},
        "net": net,
    }
    tokenizer = {
        "tokenizer_class": "MultistepTextTokenizer",
        "model_max_length": config.longest * (2 if config.pairs else 1),
        "net": net,
    }
    return {"config.json": described, "tokenizer_config.json": tokenizer}


# From nothing ----------------------------------------------------------------------------------------


def new_network(
    kind: str,
    texts: Sequence[str],
    train: Examples,
    labels: Labels,
    scale: Scale,
    *,
    width: int | None = None,
    vocabulary: int | None = None,
    longest: int,
) -> SmallNetwork:
    """A net whose vocabulary is that of these texts, which must be those of training splits alone.

    A bag begins at naive Bayes, counted in `train`.
    """
    spaceless, pairs = is_spaceless(texts), train.seconds is not None
    counts = occurrences(kind, texts, spaceless)
    least = LEAST_TEXTS if len(texts) >= FEW_TEXTS else 1
    most = vocabulary or (MOST_NGRAMS if kind == BAG else MOST_WORDS)
    found = [sorted((-n, key) for key, n in one.items() if n >= least)[:most] for one in counts]
    keys = [key for one in found for _, key in one]
    # scikit-learn's inverse document frequency, which the baseline uses as well
    weights = [math.log((1 + len(texts)) / (1 - count)) + 1.0 for one in found for count, _ in one]
    usual = max(8, min(64, labels.outputs)) if kind == BAG else 128
    config = TextNetConfig(
        kind, labels.outputs, len(keys) + UNKNOWN + 1, len(found[0]), width or usual, spaceless, pairs, longest
    )
    made = SmallNetwork(config, keys, weights, labels, scale)
    if kind == BAG and train.seconds is None and config.vocabulary * labels.outputs <= MOST_LEANINGS:
        made.begin_at_naive_bayes(train)
    return made


# From a folder ---------------------------------------------------------------------------------------


def is_small(model: str) -> bool:
    """Whether a folder holds one of these nets."""
    return "net" in read_task(model) and (Path(model) / VOCABULARY).is_file()


def load_network(model: str, labels: Labels, scale: Scale, *, pairs: bool) -> SmallNetwork:
    """The net of a folder, for these labels: with its own head if it knows the same ones, else with a new one.

    Raises PlanError for a damaged folder, and for pairs where it reads single texts or the other way round.
    """
    task = read_task(model)
    try:
        config = TextNetConfig(**task["net"])
        trained = nets.make(config)
        trained.load_state_dict(nets.weights_of(model))
        vocabulary = nets.vocabulary_of(model)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise PlanError(f"{model}: damaged ({error}); export or download the model again") from error
    if config.pairs != pairs:
        raise PlanError(
            f"model '{model}' reads {'pairs of texts' if config.pairs else 'single texts'}, and the data holds "
            f"{'pairs' if pairs else 'single texts'}; begin from nothing, or name the columns"
        )
    same = (task.get("labels"), tuple(task.get("names", ()))) == (labels.kind, labels.names)
    notes = () if same else (f"{model}: its labels are not those of the data, so its last layer is trained anew",)
    return SmallNetwork(replace(config, outputs=labels.outputs), vocabulary, (), labels, scale, trained, notes)
