"""The texts of a plan, each data set read once, whatever the number of phases that train on it."""

from __future__ import annotations

import numpy as np

from multistep.core.values.plan import DataSpec, Plan
from multistep.tasks.language.classify import TASK as CLASSIFY
from multistep.tasks.language.examples import Examples, LabelledSplits
from multistep.tasks.language.learnt import Learnt, learnt_from
from multistep.tasks.language.offer import need_of
from multistep.tasks.language.spans import TextParts, Texts, load_texts
from multistep.tasks.language.splits import load_labelled
from multistep.tasks.pretrained.choose import Need


class PlanTexts:
    def __init__(self) -> None:
        self._labelled: dict[DataSpec, LabelledSplits] = {}
        self._unlabelled: dict[DataSpec, TextParts] = {}
        self._learnt: dict[tuple[bool, DataSpec], Learnt] = {}

    def labelled(self, data: DataSpec) -> LabelledSplits:
        if data not in self._labelled:
            self._labelled[data] = load_labelled(data)
        return self._labelled[data]

    def unlabelled(self, data: DataSpec) -> TextParts:
        if data not in self._unlabelled:
            self._unlabelled[data] = load_texts(data)
        return self._unlabelled[data]

    def by_data(self, plan: Plan) -> list[Learnt]:
        """The training texts of each of a plan's data sets."""
        phases = [(plan.phase(i).task == CLASSIFY, data_of(plan, i)) for i in range(plan.phase_count)]
        for classify, data in dict.fromkeys(phases):
            if (classify, data) not in self._learnt:
                self._learnt[classify, data] = self._train(plan, classify, data)
        return [self._learnt[phase] for phase in dict.fromkeys(phases)]

    def all_train(self, plan: Plan) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for some in self.by_data(plan) for text in some.texts))

    def need(self, plan: Plan) -> Need:
        found = self.by_data(plan)
        texts = self.all_train(plan)
        return need_of(plan, texts, sum(some.count for some in found) if any(s.share < 1.0 for s in found) else None)

    def _train(self, plan: Plan, classify: bool, data: DataSpec) -> Learnt:
        if classify:
            return learnt_from(self.labelled(data).train, plan)
        return learnt_from(examples_of(self.unlabelled(data).train), plan)


def data_of(plan: Plan, phase: int) -> DataSpec:
    data = plan.phase(phase).data
    assert data is not None, "a plan has data"
    return data


def examples_of(texts: Texts) -> Examples:
    """Texts without labels."""
    return Examples(texts.texts, texts.seconds, np.zeros(len(texts.texts)))
