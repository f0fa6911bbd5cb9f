"""Two machines joined by a thin network: seconds to the same validation loss, data parallel against outer steps.

    python bench/thin.py                    # the table, in about eight minutes; as root, on Linux with iproute2
    python bench/thin.py --only outer-100   # one row
    python bench/thin.py --lost             # a machine that is killed, or whose link is cut: when does the other end?

Two network namespaces stand for the machines, each with a name that both resolve, one torchrun and one process; the
link between them carries 10 Mbit/s each way, or what the kernel can. Seconds are the wall's, from the first window on;
what was sent is what the link counted. The namespaces go when this ends, by Ctrl-C, too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("MULTISTEP_DATA", ".")) / "tinyshakespeare" / "input.txt"
RATE = "10mbit"
CAP_SECONDS = 110.0  # of training, that a run may take
TARGET = 2.0  # nats a character, on a sample of validation
PORT = 29600
MEAN: Mapping[str, Any] = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0}
STREAMED: Mapping[str, Any] = {"fragments": 2, "overlap": "5 steps"}  # the model has two blocks
ROWS: Mapping[str, dict[str, Any]] = {
    "data parallel": {},
    "outer-10": {"outer": {"every": "10 steps"}},
    "outer-100": {"outer": {"every": "100 steps"}},
    "mean-10": {"outer": {"every": "10 steps", **MEAN}},
    "mean-100": {"outer": {"every": "100 steps", **MEAN}},
    "mean-10, 4 bits": {"outer": {"every": "10 steps", **MEAN, "bits": 4}},
    "streamed-100": {"outer": {"every": "100 steps", **MEAN, "fragments": 2, "overlap": "15 steps"}},
    "streamed-10": {"outer": {"every": "10 steps", **MEAN, **STREAMED}},
    "streamed-10, 4 bits": {"outer": {"every": "10 steps", **MEAN, **STREAMED, "bits": 4}},
}
PLAN: Mapping[str, Any] = {
    "task": "text-generation",
    "model": {"layers": 2, "width": 48, "context": 64, "tokenizer": "characters"},
    "ship": "network",
    "phases": [{"name": "only", "until": "3000 steps"}],
}
RECIPE: Mapping[str, Any] = {
    **{"optimizer": "adamw", "learning_rate": 3e-3, "batch_size": 32, "cooldown_fraction": 0.0, "dropout": 0.0},
}


def command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Machine:
    name: str
    address: str
    device: str

    def starts(self, words: Sequence[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """A command in this machine, in a session of its own, so that Ctrl-C comes here first."""
        inside = f'hostname {self.name} && exec "$@"'
        around = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", inside, "sh"]
        with log.open("ab") as out:
            return subprocess.Popen(
                [*around, *words],
                stdout=out,
                stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1", "MULTISTEP_DEVICE": "cpu", **environment},
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        for pid in self.processes():
            with_pid(pid, signal.SIGKILL)

    def sent(self) -> int:
        """Bytes, since the link was made."""
        where = f"/sys/class/net/{self.device}/statistics/tx_bytes"
        words = ["ip", "netns", "exec", self.name, "cat", where]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    def cut(self) -> None:
        """Pull the cable: nothing leaves or comes any more, and no connection is told of it."""
        command("ip", "-n", self.name, "link", "set", self.device, "down")


def with_pid(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def machines(rate: str | None) -> Iterator[tuple[Machine, Machine]]:
    """Two of them, joined by a link; all of it is gone afterwards."""
    own = os.getpid()
    both = tuple(Machine(f"thin{own}{x}", f"10.77.0.{i}", f"thin{x}") for i, x in enumerate("ab", start=1))
    with ExitStack() as stack:
        for each in both:
            command("ip", "netns", "add", each.name)
            stack.callback(_remove, each)
            names = Path("/etc/netns") / each.name / "hosts"  # what `ip netns exec` shows there as /etc/hosts
            names.parent.mkdir(parents=True)
            names.write_text("127.0.0.1 localhost\n" + "".join(f"{m.address} {m.name}\n" for m in both), "utf-8")
        ends = [("netns", m.name) for m in both]
        link = ["ip", "link", "add", both[0].device, *ends[0], "type", "veth", "peer", "name", both[1].device, *ends[1]]
        command(*link)
        for each in both:
            command("ip", "-n", each.name, "addr", "add", f"{each.address}/24", "dev", each.device)
            command("ip", "-n", each.name, "link", "set", "lo", "up")
            command("ip", "-n", each.name, "link", "set", each.device, "up")
            if rate:
                shaped = ["root", "tbf", "rate", rate, "burst", "32kbit", "latency", "400ms"]
                command("ip", "netns", "exec", each.name, "tc", "qdisc", "add", "dev", each.device, *shaped)
        yield both[0], both[1]


def _remove(machine: Machine) -> None:
    machine.kill()
    subprocess.run(["ip", "netns", "del", machine.name], check=False, capture_output=True)
    names = Path("/etc/netns") / machine.name
    (names / "hosts").unlink(missing_ok=True)
    names.rmdir()
    if not any(names.parent.iterdir()):
        names.parent.rmdir()


def train(both: Sequence[Machine], folder: Path, **environment: str) -> list[subprocess.Popen[bytes]]:
    """The plan of a folder on both machines, as the docs have it."""
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "thin"]
    meeting += ["--rdzv-endpoint", f"{both[0].name}:{PORT}"]
    words = [sys.executable, "-m", "torch.distributed.run", *meeting, "-m", "multistep", "train"]
    words += [str(folder / "plan.yaml"), "--out", str(folder / "run"), "--json"]
    return [machine.starts(words, folder / f"log-{machine.device}", **environment) for machine in both]


def write_plan(folder: Path, row: Mapping[str, Any], seed: int = 0) -> None:
    content = {**PLAN, "seed": seed, "data": str(DATA.resolve()), "recipe": {**RECIPE, **row}}
    (folder / "plan.yaml").write_text(json.dumps(content), encoding="utf-8")


def journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / "run" / "journal.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


@dataclass(frozen=True)
class Look:
    seconds: float
    step: int
    loss: float


def looks(entries: Sequence[Mapping[str, Any]]) -> list[Look]:
    """Scores of the trunk, by seconds from its first window on."""
    began = next((_at(e) for e in entries if e["event"]["event"] == "window_planned"), None)
    found = [e for e in entries if e["event"]["event"] == "evaluated" and e["event"]["split"] == "validation"]
    return (
        []
        if began is None
        else [Look(_at(e) - began, e["event"]["step"], e["event"]["interval"]["score"]) for e in found]
    )


def _at(entry: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(entry["at"]).timestamp()


def row(name: str, rate: str | None, target: float, cap: float) -> tuple[list[Look], float]:
    """The looks of a run until it has come to the target, or the time is up; and the MB that were sent until then."""
    with machines(rate) as both, tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        write_plan(folder, ROWS[name])
        running = train(both, folder)
        began: float | None = None
        before = 0
        while True:
            time.sleep(0.2)
            entries = journal(folder)
            found = looks(entries)
            if began is None and any(e["event"]["event"] == "window_planned" for e in entries):
                began, before = time.monotonic(), both[0].sent()
            if any(look.loss <= target for look in found) or (began and time.monotonic() - began > cap):
                sent = both[0].sent() - before
                break
            if any(process.poll() is not None for process in running):
                raise SystemExit("".join(log.read_text(encoding="utf-8") for log in folder.glob("log-*")))
        for process in running:
            with_pid(process.pid, signal.SIGTERM)
        for process in running:
            process.wait(60)
        return found, sent / 1e6


def table(only: str | None, target: float, cap: float) -> None:
    print(f"validation loss {target} on tiny Shakespeare; {time.strftime('%Y-%m-%d')}; load {os.getloadavg()[0]:.1f}")
    for name in [only] if only else list(ROWS):
        for rate in (RATE, None):
            found, sent = row(name, rate, target, cap)
            there = next((look for look in found if look.loss <= target), None)
            last = found[-1] if found else None
            said = f"{there.seconds:.0f} s, {there.step} steps" if there else f"not in {cap:.0f} s; last {last}"
            print(f"{name:19} {rate or 'no limit':9} {said}, {sent:.1f} MB sent each way", flush=True)
            print("   " + " ".join(f"{look.step}:{look.seconds:.0f}s:{look.loss:.3f}" for look in found), flush=True)


def lost(limit: float) -> None:
    """What one machine says once the other one is gone, and after how long."""
    for how in ("killed", "cut off"):  # the second one
        with machines(RATE) as both, tempfile.TemporaryDirectory() as where:
            folder = Path(where)
            write_plan(folder, ROWS["outer-10"])
            left, gone = train(both, folder, MULTISTEP_GROUP_SECONDS=f"{limit:g}")
            while sum(e["event"]["event"] == "window_done" for e in journal(folder)) < 1:
                time.sleep(0.2)
                if left.poll() is not None or gone.poll() is not None:
                    raise SystemExit((folder / f"log-{both[0].device}").read_text(encoding="utf-8"))
            began = time.monotonic()
            if how == "killed":
                both[1].kill()
            else:
                both[1].cut()
            for machine in both[: 1 if how == "killed" else 2]:
                # Not the launcher: torchrun's own wait for an answer ends when the connection does.
                while not (told := said(folder / f"log-{machine.device}")) and time.monotonic() - began < 4 * limit:
                    time.sleep(0.2)
                print(
                    f"{how}: {machine.device} after {time.monotonic() - began:.0f} s: {told or 'nothing'}", flush=True
                )


def said(log: Path) -> str:
    return "\n".join(line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("multistep:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(ROWS))
    parser.add_argument("--target", type=float, default=TARGET)
    parser.add_argument("--seconds", type=float, default=CAP_SECONDS, help="of training, that a run may take")
    parser.add_argument("--lost", action="store_true")
    parser.add_argument("--limit", type=float, default=20.0, help="the group's time limit, with --lost")
    given = parser.parse_args()
    if not DATA.is_file():
        raise SystemExit(f"{DATA}: no such file; MULTISTEP_DATA names the folder that has tinyshakespeare/input.txt")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed
    if given.lost:
        lost(given.limit)
    else:
        table(given.only, given.target, given.seconds)


if __name__ == "__main__":
    main()
