"""Language understanding: opens the phases of plans that classify texts or fill in hidden words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.tasks import TASKS
from multistep.core.values.trial import Facts
from multistep.core.values.understood import Part
from multistep.data.names import SPLITS
from multistep.engine.learner import Learner, Readiness
from multistep.errors import PlanError
from multistep.tasks.begun import lies_at
from multistep.tasks.labelled import linear_probe
from multistep.tasks.labelled.counted import class_counts, majority_note, number_range
from multistep.tasks.labelled.scale import scale_of
from multistep.tasks.language.bearable import bearable
from multistep.tasks.language.classify import TASK as CLASSIFY
from multistep.tasks.language.classify import ClassifyDomain
from multistep.tasks.language.contenders import PAIR_USAGE, SMALL, USAGES, named_network, open_order, require_no_sizes
from multistep.tasks.language.examples import LabelledSplits, characters_in, some_of
from multistep.tasks.language.learnt import counted_of, sample_notes
from multistep.tasks.language.lengths import LOOKED_AT, blocks_of, costs_of, lengths_of, usual_context
from multistep.tasks.language.load import PRESETS, classifier, load_encoder, masked_model, new_encoder
from multistep.tasks.language.long_spans import train_spans
from multistep.tasks.language.mask import METRICS as MASK_METRICS
from multistep.tasks.language.mask import MaskDomain
from multistep.tasks.language.mean import add_mean_layer, wants_mean
from multistep.tasks.language.models import Encoder, Head
from multistep.tasks.language.nets import BAG, CNN
from multistep.tasks.language.network import Encodings, Network, Prepared
from multistep.tasks.language.offer import CHARACTERS_A_TOKEN, told_apart
from multistep.tasks.language.plan_texts import PlanTexts, data_of, examples_of
from multistep.tasks.language.preset import (
    BATCH_SIZE,
    WORK,
    Shape,
    choose_shape,
    choose_tokenizer,
    default_recipe,
    expected_epochs,
    small_recipe,
)
from multistep.tasks.language.probe import affordable, fitted
from multistep.tasks.language.small import is_small, load_network, new_network
from multistep.tasks.language.spans import require_spans
from multistep.tasks.language.tokenizer import make_tokenizer
from multistep.tasks.machine import device_name, versions_of
from multistep.tasks.pretrained.settle import Settled, seconds_of, settle, starting_from
from multistep.tasks.pretrained.timed import (
    Sizes,
    faster_in_bfloat16,
    transformer_speed,
    tuning_speed,
)
from multistep.tasks.speeds import operations
from multistep.tasks.text.corpus import LongTexts, heads_of
from multistep.tasks.understood import told

MOST_READ = {BAG: 4096, CNN: 256}  # n-grams, or words, of a text
LARGE = 1e7  # parameters of an encoder, from which on 16 bits may pay: smaller ones are not held up by products


class LanguageWorkshop:
    """Opens the phases of a plan, which share tokenizer and encoder. Implements engine.learner.Workshop."""

    def __init__(self) -> None:
        self._texts = PlanTexts()
        self._settled: Settled | None = None  # the plan's models, once what `auto` comes to is known
        self._encoders: dict[str, Encoder] = {}  # by the name of their model
        self._tokens = 0  # of training, about; 0 where an encoder was loaded

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        settled = self._settled = self._settled or settle(plan, lambda: self._texts.need(plan))
        if plan.phase(phase).task == CLASSIFY:
            learner, ready = self._open_classify(plan, settled, phase, should_stop)
        else:
            plan = settled.applied(plan)
            learner, ready = self._open_mask(plan, phase, self._shared(plan), should_stop)
        facts, told_to_people = ready.facts, ready.facts.understood
        understood = replace(told_to_people, notes=(*settled.notes, *told_to_people.notes))
        facts = replace(facts, notes=(*settled.notes, *facts.notes), understood=understood)
        return learner, replace(ready, facts=facts, models=settled.record)

    def _open_classify(
        self, plan: Plan, settled: Settled, phase: int, should_stop: Callable[[], bool]
    ) -> tuple[Learner, Readiness]:
        splits = self._texts.labelled(data_of(plan, phase))
        contenders = self._contenders(plan, settled, phase, splits)
        given = plan.phase(phase).recipe
        for rival, recipe in contenders:
            if isinstance(rival, Head) and rival.pretrained:
                splits = bearable(splits, plan, costs_of(rival, recipe, splits.train.texts))
        long = isinstance(splits.train.texts, LongTexts)
        prepared = [
            Prepared(network, splits, _known(recipe.batch_size), self._readings(plan, network, splits) if long else 1.0)
            for network, recipe in contenders
        ]
        network, recipe = contenders[0]
        for one in prepared:
            if isinstance(one.network, Head) and one.network.probed:
                one.network.probe = fitted(one, splits, one.network.probed)
        if given.get("head") == "linear-probe" and not any(getattr(n, "probe", None) for n, _ in contenders):
            raise PlanError("recipe.head is linear-probe, but no pretrained encoder is trained here; leave it out")
        domain = ClassifyDomain(splits, prepared, counted_of(plan))
        probe = network.probe if isinstance(network, Head) else None
        usual = majority_note(splits.train.labels, splits.validation.labels, splits.labels)
        # Phases share one network, and what is frozen is named by one network's own names.
        raced = plan.phase_count == 1 and "frozen" not in given
        facts = Facts(
            parameters=network.parameters,
            train_examples=len(splits.train),
            tokens_per_example=1,
            sample_tokens=len(domain.sample("validation")),
            validation_tokens=len(splits.validation),
            test_tokens=len(splits.test),
            pretrained=network.pretrained,
            device=device_name(pick_device()),
            description=f"{network.description}, up to {network.context} of a text",
            notes=(
                *splits.notes,
                *sample_notes(splits.train, plan),
                usual,
                *([probe.note] if probe else []),
                *_cut(prepared[0].encoded, network.context),
                *network.notes,
            ),
            settings=domain.settings,
            longest_context=network.longest,
            optimizers=usable_optimizers(),
            loss_unit=domain.loss_unit,
            usage=network.usage,
            rivals=tuple(recipe for _, recipe in contenders[1:]) if raced else (),
            able=probe is not None or (isinstance(network, Head) and network.able),
        )
        facts = told(
            facts,
            plan,
            phase,
            recipe,
            splits=[Part(name, len(getattr(splits, name)), "examples") for name in SPLITS],
            models=settled.names,
            classes=class_counts(splits.labels, splits.train.labels),
            labels=number_range(splits.labels, splits.train.labels),
            texts=splits.train.texts[:LOOKED_AT],
            costs=costs_of(network, recipe, splits.train.texts) if isinstance(network, Head) else None,
        )
        rate_open = "learning_rate" not in given and not network.pretrained
        mark = f"{splits.fingerprint}-{_mark(*(contender.mark for contender, _ in contenders))}"
        return TorchLearner(domain, should_stop), Readiness(facts, recipe, rate_open, mark, domain.metrics)

    def _contenders(
        self, plan: Plan, settled: Settled, phase: int, splits: LabelledSplits
    ) -> list[tuple[Network, Recipe]]:
        """The network that is trained first and its rivals, each with its recipe."""
        found = [(name, self._of_one(starting_from(plan, name), phase, splits)) for name in settled.names]
        return found[0][1] if len(found) == 1 else told_apart(found)

    def _of_one(self, plan: Plan, phase: int, splits: LabelledSplits) -> list[tuple[Network, Recipe]]:
        """The networks of a plan with one model: those of the task's own that compete, if it starts from nothing."""
        named = named_network(plan)
        if named is not None:
            return [self._contender(named, plan, phase, splits)]
        tokens = characters_in(splits.train) / CHARACTERS_A_TOKEN
        epochs = self._epochs(plan, round(min(2e4 + 2.0 * tokens, 1e8)), round(tokens), len(splits.train))
        order = open_order(plan, len(splits.train), epochs)
        return [self._contender(name, plan, phase, splits) for name in order]

    def _contender(self, name: str, plan: Plan, phase: int, splits: LabelledSplits) -> tuple[Network, Recipe]:
        given, labels, scale = plan.phase(phase).recipe, splits.labels, scale_of(splits.train.labels, splits.labels)
        pairs = splits.train.seconds is not None
        if name in SMALL:
            small = new_network(
                name,
                self._texts.all_train(plan),
                some_of(splits.train, counted_of(plan)),
                labels,
                scale,
                width=plan.model.width,
                vocabulary=plan.model.vocabulary,
                longest=plan.model.context or MOST_READ[name],
            )
            return small, small_recipe(given, name, pretrained=False)
        if is_small(name):
            require_no_sizes(plan.model)
            loaded = load_network(name, labels, scale, pairs=pairs)
            return loaded, small_recipe(given, loaded.name, pretrained=True)
        head = classifier(self._shared(plan), labels, scale)
        head.usage = PAIR_USAGE if pairs else USAGES[CLASSIFY]
        lengths = head.encode(
            splits.train.texts[:LOOKED_AT], splits.train.seconds and splits.train.seconds[:LOOKED_AT]
        ).lengths
        if head.pretrained:
            self._probed(plan, phase, head, float(lengths.mean()), splits)
        return head, self._recipe(plan, phase, head, float(lengths.mean()), len(splits.train))

    def _probed(self, plan: Plan, phase: int, head: Head, length: float, splits: LabelledSplits) -> None:
        """Decide whether the head begins as a linear probe, and of how many texts; a BERT then reads their means."""
        given = plan.phase(phase).recipe
        wanted = linear_probe.wanted(given, splits.labels, head.fresh, head.model)
        if wanted is False or plan.phase_count > 1:  # what another phase has trained, the probe was not fitted on
            return
        seconds = seconds_of(plan)
        if seconds is not None:
            seconds /= len(self._settled.names) if self._settled else 1
        many = affordable(head, length, len(splits.train), len(splits.validation), seconds)
        head.probed = max(many, min(linear_probe.LEAST, len(splits.train))) if wanted else many
        source = head.encoder.source or ""
        # An adapter's folder is for the model as it was published, without one more layer.
        if head.probed and given.get("adapter", "none") == "none" and wants_mean(head.model, head.fresh, source):
            add_mean_layer(head.model)

    def _shared(self, plan: Plan) -> Encoder:
        """The encoder of the plan's model, which all phases train."""
        if plan.model.name not in self._encoders:
            self._encoders[plan.model.name] = self._make(plan)
        return self._encoders[plan.model.name]

    def _open_mask(
        self, plan: Plan, phase: int, encoder: Encoder, should_stop: Callable[[], bool]
    ) -> tuple[Learner, Readiness]:
        data = data_of(plan, phase)
        parts = self._texts.unlabelled(data)
        head = masked_model(encoder)
        given = plan.phase(phase).recipe
        splits = {"train": parts.train, "validation": parts.validation, "test": parts.test}
        spans = {
            name: train_spans(encoder.tokenizer, part, encoder.context, parts.fingerprint)
            for name, part in splits.items()
        }
        for name in ("train", "validation"):
            require_spans(spans[name], name, str(data))
        lengths = spans["train"].encoded.lengths
        recipe = self._recipe(plan, phase, head, float(lengths.mean()), len(lengths))
        assert recipe.batch_size is not None, "the preset has one"
        domain = MaskDomain(spans, head, recipe.batch_size)
        sample = domain.sample("validation")
        hidden = domain.hidden("validation", sample)
        facts = Facts(
            parameters=head.parameters,
            train_examples=len(spans["train"]),
            tokens_per_example=max(1, round(hidden / len(sample))),
            sample_tokens=hidden,
            validation_tokens=domain.hidden("validation"),
            test_tokens=domain.hidden("test"),
            pretrained=encoder.pretrained,
            device=device_name(pick_device()),
            description=f"{encoder.description}, spans of up to {encoder.context}",
            notes=(
                *parts.notes,
                *sample_notes(examples_of(parts.train), plan),
                *_cut({name: part.encoded for name, part in spans.items()}, encoder.context),
                *head.notes,
            ),
            settings=domain.settings,
            longest_context=encoder.longest,
            optimizers=usable_optimizers(),
            loss_unit=TASKS["fill-mask"].loss_unit,
            usage=USAGES["fill-mask"],
            able=encoder.pretrained and not head.fresh,
        )
        facts = told(
            facts,
            plan,
            phase,
            recipe,
            splits=[Part(name, len(part.texts), "texts") for name, part in splits.items()],
            models=self._settled.names if self._settled else (),
            texts=heads_of(parts.train.texts, LOOKED_AT),
            costs=costs_of(head, recipe, heads_of(parts.train.texts, LOOKED_AT)),
        )
        rate_open = "learning_rate" not in given and not encoder.pretrained
        mark = f"{parts.fingerprint}-{_mark(head.mark)}-{encoder.context}"
        return TorchLearner(domain, should_stop), Readiness(facts, recipe, rate_open, mark, MASK_METRICS)

    def _make(self, plan: Plan) -> Encoder:
        """The encoder that all phases train; a tokenizer from nothing is learnt from all their training texts."""
        spec = plan.model
        pretrained = spec.name not in ("auto", *PRESETS)
        if pretrained:
            require_no_sizes(spec)
        loaded = load_encoder(lies_at(spec.name), spec.context) if pretrained else None
        texts = self._texts.by_data(plan)
        if loaded is not None:
            if spec.context is not None:
                return loaded
            usual = max(usual_context(lengths_of(loaded.tokenizer, some.texts)[0]) for some in texts)
            return replace(loaded, context=min(loaded.longest, usual))
        everything = self._texts.all_train(plan)
        tokenizer = make_tokenizer(everything, *choose_tokenizer(spec, sum(map(len, everything))))
        found = [lengths_of(tokenizer, some.texts) for some in texts]
        whole = [some.share for some in texts]
        self._tokens = max(1, *(round(tokens / share) for (_, tokens), share in zip(found, whole, strict=True)))
        context = spec.context or max(usual_context(lengths) for lengths, _ in found)
        vocabulary = tokenizer.get_vocab_size()
        # Read on average; a batch holds texts of about one length.
        length = round(self._tokens / max(1, *(some.count for some in texts)))

        def shaped(rate: float) -> Shape:
            return choose_shape(spec, plan, tokens=self._tokens, vocabulary=vocabulary, rate=rate)

        def measured(rate: float, seconds: float) -> float:
            shape = shaped(rate)
            return transformer_speed(Sizes(shape.layers, shape.width, BATCH_SIZE, min(length, context)), seconds)

        shape = shaped(operations(WORK, plan, measured))
        return new_encoder(tokenizer, layers=shape.layers, width=shape.width, heads=shape.heads, context=context)

    def _recipe(self, plan: Plan, phase: int, head: Head, length: float, examples: int) -> Recipe:
        """A BERT's: texts are `length` tokens long on average."""
        blocks = blocks_of(head)
        classify = plan.phase(phase).task == CLASSIFY
        if head.pretrained:
            tuning_speed(plan)  # by which it is told what the budget holds
        large = head.pretrained and head.parameters >= LARGE
        recipe = default_recipe(
            plan.phase(phase).recipe,
            classify=classify,
            pretrained=head.pretrained,
            parameters=head.parameters,
            own_dropout=head.own_dropout,
            epochs=self._epochs(plan, blocks, self._tokens, examples),
            length=length,
            precision="bfloat16" if large and faster_in_bfloat16(plan) else "auto",
        )
        return replace(recipe, model=recipe.model or head.name) if classify and not head.pretrained else recipe

    def _epochs(self, plan: Plan, blocks: int, tokens: int, examples: int) -> float:
        return expected_epochs(plan, blocks=blocks, tokens=tokens, examples=examples, rate=operations(WORK))

    def _readings(self, plan: Plan, network: Network, splits: LabelledSplits) -> float:
        """About how often the plan's length reads a long training split."""
        if not isinstance(network, Head):
            return 1.0  # whose texts are read late anyway
        tokens = round(characters_in(splits.train) / CHARACTERS_A_TOKEN)
        return self._epochs(plan, blocks_of(network), tokens, len(splits.train))

    def versions(self) -> Mapping[str, str]:
        return versions_of("multistep", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scikit-learn")


def _cut(encoded: Mapping[str, Encodings], context: int) -> tuple[str, ...]:
    """A note on texts whose ends are not read."""
    cut = {name: part.cut for name, part in encoded.items() if part.cut}
    if not cut:
        return ()
    counts = ", ".join(f"{name} {count:,} of {len(encoded[name]):,}" for name, count in cut.items())
    return (f"texts longer than {context} tokens, of which the ends are not read (model.context): {counts}",)


def _mark(*marks: str) -> str:
    """Of tokenizers: they may be learnt from other phases' texts, which must not change under a resumed run either."""
    return hashlib.blake2b("\0".join(marks).encode(), digest_size=8).hexdigest()


def _known(value: int | None) -> int:
    assert value is not None, "the preset has one"
    return value
