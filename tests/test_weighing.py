"""The one choice: what a candidate is worth, alone and with what still fits behind it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from multistep.core.choice.priors import learned, prior
from multistep.core.choice.weighing import Option, choose, rest, worth
from multistep.core.evidence.expected import Gain


def test_worth_is_the_mean_of_what_is_kept_when_it_turned_out_better() -> None:
    generator = np.random.default_rng(0)
    for mean, spread in ((1.0, 2.0), (-2.0, 3.0), (0.0, 1.0)):
        draws = generator.normal(mean, spread, 200_000)
        assert worth(Gain(mean, spread)) == pytest.approx(np.maximum(draws, 0).mean(), abs=0.02)
    assert worth(Gain(2.0, 0.0)) == 2.0
    assert worth(Gain(-2.0, 0.0)) == 0.0


def test_noise_takes_from_a_wild_bet_what_nobody_could_choose() -> None:
    assert worth(Gain(0.0, 4.0), noise=4.0) < worth(Gain(0.0, 4.0), noise=1.0) < worth(Gain(0.0, 4.0))
    assert worth(Gain(3.0, 4.0), noise=1e6) == pytest.approx(3.0), "what is expected to help is taken unseen"
    assert worth(Gain(-3.0, 4.0), noise=1e6) == pytest.approx(0.0)


def test_a_long_bet_must_be_worth_more_than_the_short_ones_whose_time_it_takes() -> None:
    short = [Option(f"short {k}", Gain(1.0, 0.0), 10.0) for k in range(6)]
    taken = choose([Option("long", Gain(2.9, 0.0), 60.0), *short], 60.0, 0.0).taken
    assert taken is not None
    assert taken.name.startswith("short"), "six fading ones are worth 2.9, and the long one a little less"
    taken = choose([Option("long", Gain(3.0, 0.0), 60.0), *short], 60.0, 0.0).taken
    assert taken is not None
    assert taken.name == "long"


def test_what_goes_its_own_way_adds_nothing_to_what_was_found_before_it() -> None:
    """A trunk that will pass who leads makes a small gain over that one worthless: it goes first."""
    trunk = Option("trunk", Gain(10.0, 1.0), 50.0, group="trunk", stacks=False)
    small = Option("small", Gain(1.0, 1.0), 10.0)
    taken = choose([small, trunk], 60.0, 0.0).taken
    assert taken is trunk


def test_what_could_follow_counts_and_is_not_taken_itself() -> None:
    cool = Option("cool", Gain(0.0, 0.0), 10.0, group="trunk", stacks=False)
    on = Option("go on", Gain(1.0, 0.0), 60.0, group="trunk", stacks=False)
    restart = Option("restart", Gain(5.0, 0.0), 40.0)
    assert choose([cool, on], 60.0, 0.0, least=0.0).taken is on
    assert choose([cool, on], 60.0, 0.0, later=[restart], least=0.0).taken is cool
    assert choose([cool, replace(on, cost=45.0)], 45.0, 0.0, later=[restart], least=0.0).taken is not cool


def test_lengths_of_one_thing_exclude_each_other() -> None:
    lengths = [Option(f"on for {k}", Gain(float(k), 0.0), 10.0 * k, group="extend") for k in (1, 2)]
    assert rest([(o, worth(o.gain)) for o in lengths], 30.0) <= 2.0
    choice = choose(lengths, 30.0, 0.0)
    assert choice.taken is lengths[1]
    assert choice.weighed(0.01)[0].mean == pytest.approx(0.02)
    assert [w.chosen for w in choice.weighed(0.01)] == [True, False]


def test_nothing_is_taken_that_does_not_fit_or_is_worth_nothing() -> None:
    assert choose([Option("too long", Gain(9.0, 1.0), 11.0)], 10.0, 0.0).taken is None
    assert choose([Option("hopeless", Gain(-9.0, 1.0), 1.0)], 10.0, 0.0).taken is None
    assert choose([Option("hopeless", Gain(-9.0, 1.0), 1.0)], 10.0, 0.0, least=0.0).taken is not None
    assert choose([], 10.0, 0.0).taken is None


def test_what_does_not_fit_is_not_listed_as_if_it_could_have_been_taken() -> None:
    """At the end of a budget models stood beside what was taken that needed many times what was left."""
    short, model = Option("short", Gain(1.0, 0.0), 1.0), Option("model", Gain(9.0, 1.0), 15.0)
    later = [Option("restart", Gain(5.0, 0.0), 4.0), Option("long restart", Gain(5.0, 0.0), 40.0)]
    choice = choose([model, short], 5.0, 0.0, later=later)
    assert choice.taken is short
    assert [w.name for w in choice.weighed(0.01)] == ["short", "restart"]
    assert len(choice.options) == 4, "a run that ends says what the shortest of all would have needed"


def test_a_run_adds_its_own_experience_to_what_is_known() -> None:
    known = Gain(0.0, 4.0)
    assert learned(known, []) == known
    once, often = learned(known, [-6.0]), learned(known, [-6.0] * 5)
    assert often.mean < once.mean == -3.0
    assert 4.0 / math.sqrt(2) < often.spread < once.spread < 4.0, "forks differ, however often one was seen"


def test_the_table_knows_every_situation_and_falls_back_from_move_to_moves() -> None:
    assert prior("restart", "overfitting").mean > prior("restart", "improving").mean
    assert prior("unfreeze", "plateau").spread > 0
    assert prior("unfreeze", "overfitting") != prior("unfreeze", "plateau"), "that of all moves there"
    assert worth(prior("extend", "pretrained")) > worth(prior("extend", "overfitting"))
