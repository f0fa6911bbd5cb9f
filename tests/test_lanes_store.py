"""Folders that go between a run and lanes that share no disk: whole or not at all, and as they were sent."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from lane_openers import SimulatedOpener
from runs import FALLS_THEN_FLAT, plan

from multistep.engine.checkpoints import Checkpoints
from multistep.engine.lanes import nodes, store
from multistep.engine.lanes.remote import Remote
from multistep.engine.lanes.store import Carrier, Parcel, Slot, Store
from multistep.errors import PlanError, RunFailed


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    (tmp_path / "sent" / "deep").mkdir(parents=True)
    (tmp_path / "sent" / "a.bin").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "sent" / "deep" / "b.txt").write_text("b")
    return tmp_path / "sent"


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_folder_arrives_as_it_was_sent_or_not_at_all(
    tmp_path: Path, sent: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{tmp_path.name}" if kind == "memory" else (tmp_path / "store").as_uri()
    monkeypatch.setattr(store, "PIECE_BYTES", 1000)
    pieces: list[int] = []
    place = Store(url, lambda: pieces.append(1))

    def breaks() -> None:
        raise RuntimeError("the connection broke")

    with pytest.raises(RunFailed, match="the connection broke"):
        Store(url, breaks).send(sent)
    parcel = place.send(sent)
    assert len(pieces) == 4, "signs of life on the way"
    assert place.send(sent) == parcel
    assert len(pieces) == 4, "what is there is not sent again"
    place.fetch(parcel, tmp_path / "had")
    assert content(tmp_path / "had") == content(sent)
    place.write(f"{parcel.name}/files/deep/b.txt", b"c")
    with pytest.raises(RunFailed, match=r"files/deep/b.txt: not as it was written"):
        place.fetch(parcel, tmp_path / "damaged")
    place.clear()
    with pytest.raises(RunFailed, match="gone, though it is still needed"):
        place.fetch(parcel, tmp_path / "gone")


def test_half_a_folder_is_none(tmp_path: Path, sent: Path) -> None:
    """Killed in the second file: nothing has the name of the folder, and the next one sends it whole."""
    place = Store(f"memory://{tmp_path.name}")
    left = [1]

    def dies() -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()

    with pytest.raises(KeyboardInterrupt):
        Store(place.url, dies).send(sent)
    assert place._system.find(place._root), "the first file is there"
    assert not [path for path in place._system.find(place._root) if path.endswith("manifest.json")]
    place.fetch(place.send(sent), tmp_path / "had")
    assert content(tmp_path / "had") == content(sent)


def test_a_lane_elsewhere_saves_what_another_one_loads(tmp_path: Path) -> None:
    """By the run's side and the lanes', which see nothing of each other's disks but the store."""
    url = f"memory://{tmp_path.name}"
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    carrier = Carrier(Store(url), tmp_path / "run" / "checkpoints")
    wanted = plan(recipe={"learning_rate": 0.02})
    lanes = [Remote(pickle.dumps(SimulatedOpener(FALLS_THEN_FLAT)), {}, ".", url) for _ in range(2)]
    for lane in lanes:
        assert lane.do("open", wanted, 0, {}, False, None)[1] is None

    def ask(lane: int, verb: str, *arguments: Any, fills: Path | None = None) -> Any:
        crossing = pickle.loads(pickle.dumps(carrier.sent(arguments, fills=fills is not None)))
        assert not any(isinstance(each, Path) for each in crossing)
        value, error, _ = pickle.loads(pickle.dumps(lanes[lane].do("ask", verb, crossing, {})))
        assert error is None, error
        return carrier.had(value, fills) if fills else value

    ready = lanes[0].do("open", wanted, 0, {}, False, None)[0]
    ask(0, "initial", ready.recipe, 0)
    ask(0, "advance", [0.02] * 50)
    for step in (50, 100):
        staged = checkpoints.stage(f"trial@{step}")
        ask(0, "save", staged, fills=staged)
        checkpoints.put(f"trial@{step}", staged)
        expected = ask(0, "advance", [0.02] * 50)
    ask(1, "load", checkpoints.path("trial@100"), ready.recipe, 0)
    assert ask(1, "advance", [0.02] * 50) == expected
    checkpoints.keep_only(["trial@100"])
    carrier.sweep()
    staged = checkpoints.stage("trial@150")
    ask(0, "save", staged, fills=staged)
    kept = {path.split("/")[-2] for path in carrier.store._system.find(url) if path.endswith("/manifest.json")}
    assert len(kept) == 2, "what the run needs no more is removed from the store: trial@50"
    assert carrier.send(checkpoints.path("trial@100")).name in kept


class OneProcess:
    """As much of Ray as tells what is seen: actors that answer at once."""

    class exceptions:  # noqa: N801
        RayError = RuntimeError

    def wait(self, asked: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return asked, []

    def get(self, answer: Any) -> Any:
        return answer


class Actor:
    def __init__(self, place: str | None = None, versions: dict[str, str] | None = None) -> None:
        """`place`: where it is when it looks at what all are to share."""
        self._place, self._versions = place, versions
        self.sees = self

    def remote(self, place: str, *rest: Any) -> Any:
        wrong, where, versions = nodes.sees(self._place or place, *rest)
        return wrong, where, self._versions or versions


def test_what_is_not_the_same_everywhere_is_said_of_the_lane(tmp_path: Path) -> None:
    ray: Any = OneProcess()
    nodes.require_same(ray, [Actor(), Actor()], tmp_path, None)
    assert not list(tmp_path.iterdir())
    (tmp_path / "elsewhere").mkdir()
    away = Actor(str(tmp_path / "elsewhere"))
    with pytest.raises(PlanError, match=r"lane 2 \(.*\) does not see what was written there, in .*--out DIR, or a st"):
        nodes.require_same(ray, [Actor(), away], tmp_path, None)
    with pytest.raises(PlanError, match=r"lane 1 \(.*\) does not see .* in memory://one: name a place .* --shared URL"):
        nodes.require_same(ray, [Actor("memory://other")], tmp_path, "memory://one")
    with pytest.raises(PlanError, match=r"lane 1 \(.*\) has other versions: python .* here and 3.1 there"):
        nodes.require_same(ray, [Actor(versions={**nodes.versions_here(), "python": "3.1"})], tmp_path, None)
    with pytest.raises(PlanError, match=r"--shared nowhere://x: Protocol not known"):
        nodes.require_same(ray, [Actor()], tmp_path, "nowhere://x")


def test_what_a_lane_writes_must_be_seen_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "sees", lambda *_: ("", "a node", nodes.versions_here()))
    with pytest.raises(PlanError, match=r"what lane 1 wrote there is not seen here; name a place .* with --out DIR"):
        nodes.require_same(OneProcess(), [Actor()], tmp_path, None)


def test_parcels_cross_as_values() -> None:
    assert pickle.loads(pickle.dumps([Parcel("a"), Slot()]))[0] == Parcel("a")
