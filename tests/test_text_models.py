"""Causal models of transformers: what is asked of them without trusting what they say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from test_summed import Largest
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer

from multistep.tasks.chat.conversation import Conversation, Turn
from multistep.tasks.chat.load import ChatSplits
from multistep.tasks.text import nats, summed
from multistep.tasks.text.causal import TransformersMaker
from multistep.tasks.text.models import load_model
from multistep.tasks.text.nats import IGNORED
from multistep.tasks.text.splits import TextSplits
from multistep.tasks.text.tokenizer import byte_bpe_tokenizer, load_tokenizer
from multistep.tasks.writing.bearable import bearable

TOKENIZER = byte_bpe_tokenizer(["a river runs through it, and over it a bridge"], 300)


def maker(kind: str = "llama", **settings: Any) -> TransformersMaker:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=300, **{**sizes, **settings})
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return TransformersMaker(model, TOKENIZER, pretrained=True, context=None, name="tiny")


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens, labels = (torch.randint(0, 300, (3, 10), generator=generator) for _ in range(2))
    labels[:, ::3] = IGNORED
    return tokens, labels


@pytest.mark.parametrize(
    ("kind", "settings"),
    # The second caps its logits after the output layer, the third adds no positions of its own.
    [
        ("llama", {"num_key_value_heads": 1}),
        ("gemma2", {"num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 2.0}),
        ("bloom", {"n_head": 2, "n_layer": 2}),
    ],
)
def test_nats_of_labels_are_those_of_the_models_own_logits(
    kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, (tokens, labels) = maker(kind, **settings), rows()
    model: Any = made.build(0).eval()
    expected = F.cross_entropy(model(tokens).logits.flatten(0, 1), labels.flatten(), reduction="none").view(3, 10)
    gradients = torch.autograd.grad(expected.sum(), list(model.parameters()), allow_unused=True)
    for most in (nats.MOST_LOGITS, 300 * 4):  # in one piece, and in pieces of four labels
        monkeypatch.setattr(nats, "MOST_LOGITS", most)
        found = made.token_nats(model, tokens, labels)
        assert torch.allclose(found, expected, atol=1e-5)
        assert (found[labels == IGNORED] == 0).all()
        again = torch.autograd.grad(found.sum(), list(model.parameters()), allow_unused=True)
        assert all(a is b is None or torch.allclose(a, b, atol=1e-4) for a, b in zip(again, gradients, strict=True))
    labelled = int((labels != IGNORED).sum())
    monkeypatch.setattr(summed, "FROM", 0)  # in training, where a model's head is a plain one
    monkeypatch.setattr(summed, "ON_CPU", 300 * 4)
    with Largest() as largest:
        total = made.summed_nats(model, tokens, labels, count=labelled)
        again = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    if kind == "llama":
        assert largest.numbers == 300 * 16, "the head's own weights, or as many; all logits would be 30 x 300"
    assert float(total.detach()) == pytest.approx(float(expected.sum().detach()), rel=1e-6)
    assert all(a is b is None or torch.allclose(a, b, atol=1e-4) for a, b in zip(again, gradients, strict=True))


def test_a_model_that_can_be_packed_sees_no_neighbour() -> None:
    made = maker("llama", num_key_value_heads=1)
    tokens, labels = rows()
    assert made.packs
    model = made.build(0).eval()
    positions = torch.cat([torch.arange(4), torch.arange(6)]).expand(3, -1)
    with torch.inference_mode():
        packed = made.token_nats(model, tokens, labels, positions_BT=positions)
        alone = [made.token_nats(model, tokens[:, part], labels[:, part]) for part in (slice(0, 4), slice(4, 10))]
    assert torch.allclose(packed, torch.cat(alone, 1), atol=1e-5)
    # Told apart by where heads look, not by position: this kind of model reads across, and says so.
    assert not maker("bloom", n_head=2, n_layer=2).packs


def test_a_tokenizer_that_was_saved_cutting_and_filling_up_reads_all_the_same(tmp_path: Path) -> None:
    made = maker("llama", num_key_value_heads=1)
    made.write(made.build(0), tmp_path)
    hub = AutoTokenizer.from_pretrained(tmp_path)
    hub.pad_token = hub.eos_token
    text = "a river runs through it " * 20
    whole = made.tokenizer.encode(text).ids
    hub("short", padding="max_length", truncation=True, max_length=32)
    hub.save_pretrained(tmp_path)
    assert len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids) == 32
    for found in (load_model(str(tmp_path)).tokenizer, load_tokenizer(tmp_path)):
        assert found.encode(text).ids == whole
        assert len(found.encode("short").ids) < 32


def test_no_more_is_scored_of_held_out_text_than_the_budget_bears() -> None:
    document = "a river runs through it " * 20
    splits = TextSplits((document,), (document,) * 50, (document * 50,), contiguous=False, notes=(), fingerprint="mark")
    tokens = len(TOKENIZER.encode(document).ids)
    limits = {"validation": 10 * tokens, "test": 5 * tokens}
    found = bearable(splits, limits.get, TOKENIZER)
    assert found.validation == (document,) * 10
    assert len(found.test[0]) == pytest.approx(5 * len(document), rel=0.05)
    assert found.notes[0].startswith("validation: 10 of 50, drawn by lot, are scored, since the budget bears no more")
    assert found.fingerprint != splits.fingerprint
    assert bearable(splits, lambda name: 51 * tokens, TOKENIZER) is splits
    assert bearable(splits, lambda name: None, TOKENIZER) is splits
    # Of conversations as many stay as say something, or a run on long ones would have no validation split left.
    talk = Conversation((Turn("user", document), Turn("assistant", document)))
    talks = ChatSplits((talk,) * 9, (talk,) * 50, (talk,) * 9, notes=(), fingerprint="mark")
    few = bearable(talks, lambda name: tokens, TOKENIZER)
    assert (len(few.validation), len(few.test)) == (16, 9)
    # A character may be several tokens, and around a short turn stand more of them than in it.
    foreign = TextSplits(("\u4f60",), ("\u4f60\u597d" * 50,) * 40, (), contiguous=False, notes=(), fingerprint="mark")
    each = len(TOKENIZER.encode(foreign.validation[0]).ids)
    assert each > len(foreign.validation[0])
    assert len(bearable(foreign, lambda name: 20 * each, TOKENIZER).validation) == 20
    short = Conversation((Turn("user", "a"), Turn("assistant", "b")))
    talks = ChatSplits((short,) * 9, (short,) * 500, (), notes=(), fingerprint="mark")
    assert len(bearable(talks, lambda name: 1000, TOKENIZER, around=13).validation) == pytest.approx(1000 / 16, abs=2)
