"""What a trial asks of the hand that does the work, as values: so that the one who asks need not be there.

A trial is a generator of journal entries and of `Ask`s, each of which is answered before it goes on. Whether a learner
in this process answers, or one in another, is for whoever drives it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from multistep.core.values.events import Account, Entry
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import Learner

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A verb of the learner, its arguments, and the account that its time is charged to.

    Beside the learner's verbs there are "fit", its property, "prepare", which answers whether there is anything to be
    done before the next step, and "do", which does that. `then` is applied to the answer by whoever asks, on the same
    account.
    """

    verb: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    account: Account = "other"
    then: Callable[[Any], Any] | None = None


Asking: TypeAlias = Generator[Entry | Ask, Any, T]


class Hand:
    """Answers what is asked, by a learner."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._todo: Callable[[], None] | None = None

    def answer(self, verb: str, arguments: tuple[Any, ...] = (), keywords: Mapping[str, Any] | None = None) -> Any:
        match verb:
            case "fit":
                return self._learner.fit
            case "prepare":
                self._todo = self._learner.prepare(*arguments)
                return self._todo is not None
            case "do":
                assert self._todo is not None, "asked for only where there is something to do"
                return self._todo()
        return getattr(self._learner, verb)(*arguments, **(keywords or {}))


def answered(asking: Asking[T], learner: Learner, clock: BudgetClock) -> Generator[Entry, None, T]:
    """Take what asks to its end, its questions answered here and now; yields the entries alone."""
    hand, step = Hand(learner), asking.__next__
    while True:
        try:
            found = step()
        except StopIteration as end:
            value: T = end.value
            return value
        if isinstance(found, Entry):
            try:
                yield found
            except GeneratorExit:
                asking.close()
                raise
            step = asking.__next__
            continue
        try:
            with clock.account(found.account):
                value_ = hand.answer(found.verb, found.arguments, found.keywords)
                value_ = found.then(value_) if found.then else value_
        except Exception as error:
            step = _throwing(asking, error)
        else:
            step = _sending(asking, value_)


def _sending(asking: Asking[T], value: Any) -> Callable[[], Entry | Ask]:
    return lambda: asking.send(value)


def _throwing(asking: Asking[T], error: Exception) -> Callable[[], Entry | Ask]:
    return lambda: asking.throw(error)
