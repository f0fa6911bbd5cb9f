"""Encoders and their heads: built for each trial, asked for logits, written as Hugging Face folders."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.weights import as_os_errors
from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError
from multistep.tasks.hub import draw_fresh, quietly
from multistep.tasks.labelled.linear_probe import LinearProbe
from multistep.tasks.labelled.scale import Scale, last_linear, rescale
from multistep.tasks.language.encode import Encoded, TextEncoder
from multistep.tasks.language.first_token import first_token_logits, reads_first_token
from multistep.tasks.language.tokenizer import save_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


STRONGEST = 0.5  # of the words are dropped at full augmentation


@dataclass(frozen=True)
class Encoder:
    """What all phases of a plan share: tokenizer, configuration, and the folder or hub id of the weights, if any.

    `context` is the most tokens that are read of a text; `longest` the most that the model could.
    """

    tokenizer: Tokenizer
    config: Any
    context: int
    longest: int
    pad: int
    mask: int | None
    source: str | None = None  # None: from nothing
    hub_tokenizer: Any = None
    description: str = ""

    @property
    def pretrained(self) -> bool:
        return self.source is not None

    @property
    def special(self) -> tuple[int, ...]:
        """Ids that are no words: they are neither hidden nor put in a hidden word's place."""
        added = self.tokenizer.get_added_tokens_decoder()
        return tuple(i for i, token in added.items() if token.special)


@dataclass
class Head:
    """A model for one task on an encoder: built anew for each trial, the same bits for the same seed."""

    encoder: Encoder
    model: Any  # with weights of the encoder's source, or as its class makes them
    fresh: tuple[str, ...]  # parameters that the source does not have
    scale: Scale = field(default_factory=Scale)
    spread: float | None = None  # of embeddings from nothing; None: as the configuration says
    notes: tuple[str, ...] = ()
    usage: str = ""
    name: str = "bert"
    probed: int = 0  # training texts that its first last layer is to be fitted on
    probe: LinearProbe | None = None  # that last layer; None: drawn
    _reads: TextEncoder | None = field(default=None, repr=False, compare=False)

    @property
    def description(self) -> str:
        return self.encoder.description

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def pretrained(self) -> bool:
        return self.encoder.pretrained

    @property
    def able(self) -> bool:
        """Whether it can do the task as it is: pretrained, with a last layer of its own for these labels."""
        return self.pretrained and f"{last_linear(self.model)}.weight" not in self.fresh

    @property
    def origin(self) -> Origin | None:
        return Origin(self.encoder.source, self.fresh) if self.pretrained else None

    @property
    def context(self) -> int:
        return self.encoder.context

    @property
    def longest(self) -> int:
        return self.encoder.longest

    @property
    def pad(self) -> int:
        return self.encoder.pad

    @property
    def mask(self) -> int | None:
        return self.encoder.mask

    @property
    def mark(self) -> str:
        return self.encoder.tokenizer.to_str()

    @property
    def tokenizer(self) -> Tokenizer:
        return self.encoder.tokenizer

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None) -> Encoded:
        if self._reads is None:
            self._reads = TextEncoder(self.encoder.tokenizer, self.encoder.context)
        return self._reads(texts, seconds)[0]

    def hidden(self, recipe: Recipe) -> float:
        """The share of words that stand behind the mask token while training."""
        if recipe.augmentation and self.mask is None:
            raise PlanError("recipe.augmentation hides words behind a mask token, and this tokenizer has none")
        return STRONGEST * recipe.augmentation

    def about(self) -> dict[str, Any]:
        return {"context": self.encoder.context}

    @property
    def own_dropout(self) -> float:
        return max((module.p for module in _dropouts(self.model)), default=0.0)

    @property
    def settings(self) -> tuple[str, ...]:
        """Of the recipe's keys, those that this model answers to."""
        return ("dropout",) if _dropouts(self.model) else ()

    def build(self, seed: int) -> nn.Module:
        if not self.encoder.pretrained:
            with torch.random.fork_rng([]), quietly():
                torch.manual_seed(seed)
                made: nn.Module = type(self.model)(copy.deepcopy(self.model.config))
                if self.spread is not None:
                    _spread_embeddings(made, self.spread)
            return made
        module: nn.Module = copy.deepcopy(self.model)
        draw_fresh(module, self.fresh, seed)
        with torch.no_grad():
            rescale(module, self.scale.undone, self.fresh)
        if self.probe is not None:
            self.probe.put_into(module)
        return module

    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        """Set dropout where the model has it; attention drops nothing where its configuration says so."""
        places = _dropouts(model)
        if recipe.dropout and not places:
            raise PlanError(f"recipe.dropout is {recipe.dropout:g}, but this model has no dropout; leave it out")
        if recipe.dropout != self.own_dropout:
            for module in places:
                module.p = recipe.dropout

    def logits(self, model: nn.Module, tokens_BT: Tensor, inside_BT: Tensor, types_BT: Tensor) -> Tensor:
        if reads_first_token(model):
            return first_token_logits(model, tokens_BT, inside_BT, types_BT)
        logits: Tensor = model(**self.inputs(tokens_BT, inside_BT, types_BT)).logits
        return logits

    def hidden_logits(
        self, model: Any, tokens_BT: Tensor, inside_BT: Tensor, types_BT: Tensor, places_N: Tensor
    ) -> Tensor:
        """Logits of the tokens at these places of all (shape: places, vocabulary): a seventh of the work of all."""
        inputs = self.inputs(tokens_BT, inside_BT, types_BT)
        head = getattr(model, "cls", None) or getattr(model, "lm_head", None)
        states_BT = model.base_model(**inputs)[0] if head else model(**inputs).logits
        states_N = states_BT.flatten(0, 1)[places_N]
        found: Tensor = head(states_N) if head else states_N
        return found

    def inputs(self, tokens_BT: Tensor, inside_BT: Tensor, types_BT: Tensor) -> dict[str, Tensor]:
        """The model's keywords for a batch."""
        if getattr(self.encoder.config, "summary_type", None) == "last":
            return _padded_in_front(tokens_BT, inside_BT)
        inputs = {"input_ids": tokens_BT, "attention_mask": inside_BT}
        if getattr(self.encoder.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = types_BT
        return inputs

    def write(self, model: Any, folder: Path) -> None:
        """A folder that transformers loads, tokenizer and all."""
        with quietly(), as_os_errors():
            if self.scale != Scale():
                model = copy.deepcopy(model)
                with torch.no_grad():
                    rescale(model, self.scale, ())
            model.save_pretrained(folder)
        if self.encoder.hub_tokenizer is not None:
            self.encoder.hub_tokenizer.save_pretrained(folder)
        else:
            save_tokenizer(self.encoder.tokenizer, folder, self.encoder.longest)


def _padded_in_front(tokens_BT: Tensor, inside_BT: Tensor) -> dict[str, Tensor]:
    """Inputs of XLNet, whose head reads the last place; its own places are relative, so nothing else moves."""
    length = tokens_BT.shape[1]
    place_BT = torch.arange(length, device=tokens_BT.device) + inside_BT.sum(1, keepdim=True)
    moved_BT, there_BT = (values_BT.gather(1, place_BT % length) for values_BT in (tokens_BT, inside_BT))
    return {"input_ids": moved_BT, "attention_mask": there_BT.float()}


def _spread_embeddings(model: Any, spread: float) -> None:
    """Draw embeddings anew: those of words with this deviation, of places and the like with a third of it."""
    words = model.get_input_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, spread if module is words else spread / 3)


def _dropouts(model: nn.Module) -> list[nn.Dropout]:
    """Where a model drops something."""
    return [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
