"""Where text models come from and where they go: presets from nothing, folders, hub ids; Hugging Face folders."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.core.values.recipe import Recipe
from multistep.core.values.understood import one_or_many
from multistep.errors import PlanError, nearest
from multistep.tasks.hub import first_line, quietly, why_not_had
from multistep.tasks.reach import Named, within_reach
from multistep.tasks.text.causal import TransformersMaker
from multistep.tasks.text.lean import LeanConfig, LeanGPT
from multistep.tasks.text.lean_export import from_transformers, to_transformers
from multistep.tasks.text.nats import nats_in_all, nats_of_labels
from multistep.tasks.text.onto import base_of_adapter, merged
from multistep.tasks.text.preset import PRESETS, Preset
from multistep.tasks.text.tokenizer import (
    END_OF_TEXT,
    as_it_is,
    byte_bpe_tokenizer,
    character_tokenizer,
    for_transformers,
    load_tokenizer,
    save_tokenizer,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tokenizer_config.json")


class Maker(Protocol):
    """One kind of model, with its tokenizer."""

    tokenizer: Tokenizer
    context: int  # the model's own, where a recipe names none
    vocabulary: int
    end: int  # the end-of-text token, which stands before a text too
    pretrained: bool
    architecture: str
    description: str
    settings: tuple[str, ...]  # of dropout and context, those that can be raised
    own_dropout: float  # what pretrained weights were trained with, as far as they say
    longest_context: int | None
    looked_up: int  # parameters that only stand in tables: looking one up costs next to nothing

    @property
    def hub_tokenizer(self) -> Any:
        """The tokenizer as transformers has it, with its chat template if there is one."""

    @property
    def origin(self) -> Origin | None: ...
    @property
    def packs(self) -> bool:
        """Whether one row can hold several texts that do not see each other."""

    @property
    def parameters(self) -> int:
        """How many numbers the model has, told without building one."""

    def reads(self, context: int) -> int | None:
        """The longest text that a model reads as well once it is trained on rows of so many tokens; None: any."""

    def build(self, seed: int) -> nn.Module: ...
    def at_once(self, context: int) -> int | None:
        """How many rows of so many tokens a pass should hold in training; None: as many as there are."""

    def logits(self, model: nn.Module, tokens_BT: Tensor) -> Tensor: ...
    def token_nats(
        self,
        model: nn.Module,
        tokens_BT: Tensor,
        labels_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        label_smoothing: float = 0.0,
        count: int | None = None,
    ) -> Tensor:
        """The loss of each label in nats (float32; shape B, T), 0 where the label is IGNORED; `count` of them are not.

        `positions_BT` begin anew at 0 where another text begins in a row: neither sees the other. Needs `packs`.
        """

    def summed_nats(
        self,
        model: nn.Module,
        tokens_BT: Tensor,
        labels_BT: Tensor,
        *,
        count: int,
        positions_BT: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The sum of what `token_nats` tells, for training: without the logits of all tokens in memory at once."""

    def configure(self, model: nn.Module, recipe: Recipe) -> None: ...
    def write(self, model: nn.Module, folder: Path) -> None: ...


class LeanMaker:
    """The lean module, from nothing or from a folder that it was exported to."""

    def __init__(
        self, config: LeanConfig, tokenizer: Tokenizer, weights: LeanGPT | None = None, folder: Path | None = None
    ) -> None:
        self._config, self._weights, self._folder = config, weights, folder
        self.tokenizer, self.context, self.vocabulary = tokenizer, config.context, config.vocabulary
        self.packs = False
        self.origin = Origin(None) if weights is not None else None
        self.end = int(tokenizer.token_to_id(END_OF_TEXT) or 0)
        self.pretrained = weights is not None
        self.own_dropout = 0.0  # an export is of a model that is used
        self.longest_context = None if config.architecture == "nanochat" else config.context
        self.architecture: str = config.architecture
        self.looked_up = config.vocabulary * config.width if config.architecture == "nanochat" else 0
        self.settings: tuple[str, ...] = ("dropout", "context") if config.architecture == "nanochat" else ("dropout",)
        heads = f"{config.heads} {one_or_many(config.heads, 'heads')}"
        self.description = (
            f"{config.architecture}, {config.layers} layers of width {config.width} with {heads}, "
            f"context {config.context}, vocabulary {config.vocabulary:,}"
        )

    @functools.cached_property
    def hub_tokenizer(self) -> Any:
        return for_transformers(self.tokenizer, self._folder)

    @property
    def parameters(self) -> int:
        return self._config.parameters

    def reads(self, context: int) -> int | None:
        return None if self.longest_context is None else context  # learned positions beyond it were never trained

    def build(self, seed: int) -> nn.Module:
        model = LeanGPT(self._config).initialise(seed)
        if self._weights is not None:
            model.load_state_dict(self._weights.state_dict())
        return model

    def logits(self, model: nn.Module, tokens_BT: Tensor) -> Tensor:
        logits: Tensor = model(tokens_BT)
        return logits

    def token_nats(
        self,
        model: nn.Module,
        tokens_BT: Tensor,
        labels_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        label_smoothing: float = 0.0,
        count: int | None = None,
    ) -> Tensor:
        assert positions_BT is None, "a lean model reads one text a row"
        return nats_of_labels(lambda hidden: hidden, self.logits(model, tokens_BT), labels_BT, label_smoothing, count)

    def summed_nats(
        self,
        model: nn.Module,
        tokens_BT: Tensor,
        labels_BT: Tensor,
        *,
        count: int,
        positions_BT: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        assert positions_BT is None, "a lean model reads one text a row"
        assert isinstance(model, LeanGPT), "what this maker builds"
        states_BTW, head = model.states(tokens_BT), model.get_output_embeddings()
        return nats_in_all(head, states_BTW, labels_BT, label_smoothing, count)

    def at_once(self, context: int) -> None:
        return None  # small, and its batches are

    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        assert isinstance(model, LeanGPT)
        model.dropout = recipe.dropout
        try:
            model.set_context(recipe.context or self.context)
        except ValueError as error:
            raise PlanError(f"recipe.{error}") from error

    def write(self, model: nn.Module, folder: Path) -> None:
        from safetensors.torch import save

        assert isinstance(model, LeanGPT)
        config, tensors = to_transformers(model)
        if model.positions is not None:  # those beyond a shorter context were never read
            positions = "transformer.wpe.weight"
            tensors[positions] = tensors[positions][: model.config.context].clone()
        # The output layer of a GPT-2 is its embedding; it is stored once, as transformers does.
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        config |= {"bos_token_id": self.end, "eos_token_id": self.end, "dtype": "float32"}
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        generation = {"bos_token_id": self.end, "eos_token_id": self.end, "pad_token_id": self.end}
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2), encoding="utf-8")
        save_tokenizer(self.tokenizer, folder, model.config.context)


def make_preset(
    preset: Preset, texts: Sequence[str], marks: Sequence[str] = (), most_learnt: int | None = None
) -> Maker:
    """A model from nothing, its tokenizer learnt from the training texts, of `most_learnt` characters of them (None:
    the usual number); `marks` are tokens beside those learnt.
    """
    if preset.tokenizer == "characters":
        tokenizer = character_tokenizer(texts)
    else:
        assert preset.vocabulary is not None, "a BPE preset has a vocabulary size"
        tokenizer = byte_bpe_tokenizer(texts, preset.vocabulary, most_characters=most_learnt)
    tokenizer.add_special_tokens(list(marks))
    shape, vocabulary = preset.shape, tokenizer.get_vocab_size()
    lean = preset.architecture in ("nanochat", "gpt2")
    try:
        # Of the others it checks the sizes alone: they too turn pairs of each head's rows by their position.
        config = LeanConfig(
            preset.architecture if lean else "nanochat",  # type: ignore[arg-type]
            vocabulary,
            shape.layers,
            shape.width,
            shape.heads,
            shape.context,
        )
    except ValueError as error:
        raise PlanError(f"model: {error}") from error
    if lean:
        return LeanMaker(config, tokenizer)
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.for_model(
        preset.architecture,
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.width // shape.heads,
        max_position_embeddings=shape.context,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng([]):
        model = AutoModelForCausalLM.from_config(settings)  # type: ignore[no-untyped-call]
    return TransformersMaker(
        model, tokenizer, pretrained=False, context=shape.context, name=f"{preset.architecture} from nothing"
    )


def load_model(name: str, context: int | None = None) -> Maker:
    """The causal model of a local folder or a hub id. Raises PlanError that says what is missing."""
    folder = Path(name)
    if folder.is_dir():
        if base := base_of_adapter(folder):
            return _with_adapter(folder, base, context)
        if not (folder / "config.json").is_file():
            raise PlanError(f"model: {folder} holds no config.json; name a Hugging Face model folder")
        if context is None and (lean := _load_lean(folder)) is not None:
            return lean
        if not any((folder / file).is_file() for file in TOKENIZER_FILES):
            raise PlanError(f"model: {folder} holds no tokenizer (tokenizer.json); copy there the one it learnt with")
    elif name.count("/") > 1 or name.startswith((".", "/")):
        raise PlanError(f"model: {name}: no such folder")
    tokenizer, model = load_transformers(name, torch.float32)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise PlanError(f"model '{name}': its tokenizer has no fast form; use a model with a tokenizer.json")
    return TransformersMaker(model, tokenizer, pretrained=True, context=context, name=name, half=_was_half(name))


def _with_adapter(folder: Path, base: str, context: int | None) -> Maker:
    """A base model with an adapter that was trained elsewhere in its weights."""
    with within_reach([Named(base, "model")]):
        tokenizer, model = load_transformers(base, torch.float32)
    model = merged(model, base, folder)
    return TransformersMaker(
        model, tokenizer, pretrained=True, context=context, name=f"{base} with the adapter {folder}", published=False
    )


def load_transformers(name: str, dtype: torch.dtype | Literal["auto"], *, whole: bool = False) -> tuple[Any, Any]:
    """The tokenizer and the causal model of a folder or a hub id. Raises PlanError that says what is wrong.

    `whole`: it is to be used as it is, so its head must be there too; one that is trained may get a new one.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quietly():
            tokenizer = AutoTokenizer.from_pretrained(name)
            if hasattr(tokenizer, "backend_tokenizer"):
                as_it_is(tokenizer.backend_tokenizer)
            load: Any = AutoModelForCausalLM.from_pretrained  # whose types do not know of the loading info
            model, found = load(name, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
    except MemoryError:
        raise
    except Exception as error:  # the library raises its own kinds, and those of safetensors, tokenizers and the hub
        if Path(name).is_dir():
            raise _damaged(name, first_line(error)) from error
        raise PlanError(
            f"model '{name}' is neither a preset ({', '.join(PRESETS)}) nor a folder, and could not be fetched from "
            "the hub "
            f"({why_not_had(name, error)}).{nearest(name, PRESETS)}"
        ) from error
    body = f"{model.base_model_prefix}."  # a head may be new, what is below it may not
    lacking = [key for key in found["missing_keys"] if key.startswith(body)]
    if wrong := sorted([*lacking, *(entry[0] for entry in found["mismatched_keys"])]):
        raise _damaged(name, f"{len(wrong)} weights are missing or misshapen, such as {wrong[0]}")
    if whole and found["missing_keys"]:
        lacks = min(found["missing_keys"])
        raise PlanError(f"{name}: the weights of its head are missing (such as {lacks}), so it can write nothing")
    return tokenizer, model


def _was_half(name: str) -> bool:
    """Whether weights were published in bfloat16."""
    from transformers import AutoConfig

    with quietly():
        return AutoConfig.from_pretrained(name).dtype is torch.bfloat16


def _damaged(name: str | Path, reason: str) -> PlanError:
    return PlanError(
        f"model: {name} cannot be loaded ({reason}); it is damaged, or holds another model than its config.json says: "
        "export or download it again"
    )


def _load_lean(folder: Path) -> LeanMaker | None:
    """A folder that this project exported, without the seconds that importing transformers takes."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).is_file():
        return None
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        weights = load_file(folder / WEIGHTS)
    except (ValueError, TypeError, SafetensorError) as error:
        raise _damaged(folder, first_line(error)) from error
    tokens = {"bos_token_id", "eos_token_id", "pad_token_id"}
    model = from_transformers({**config, **dict.fromkeys(tokens)}, weights)
    return LeanMaker(model.config, load_tokenizer(folder), model, folder) if model is not None else None
