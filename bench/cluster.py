"""A Ray cluster of two nodes that share nothing but a wire, one of which is lost in mid-run: what becomes of the run.

    python bench/cluster.py            # as root, on Linux; needs ray, and for S3 moto[server], boto3 and s3fs

Each node is in a network namespace of its own, and the second one sees other files where the runs are. A small module
is trained in one lane, then on the cluster: without a store (refused), with one, with the second node killed, with the
wire cut. Then by a client (ray://HOST:PORT) on the second machine, while the only node is the first one: undisturbed,
killed in mid-run and started again, and with the node lost. Printed is what was lost, how long the run took, and
whether it came to the bits of the run in one lane.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("lanes-1", "lanes-2")
ADDRESSES = ("10.77.15.1", "10.77.15.2")
PORT, STORE_PORT, CLIENT_PORT = 6399, 5577, 10001
START_SECONDS = 10  # for a node to come
LIMIT_SECONDS = 30  # without a sign of life
CASES = ("no store", "store", "killed", "cut")
CLIENTS = ("client", "client killed", "node lost")
SOURCES = str(Path(__file__).parents[1] / "src")


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@contextmanager
def namespaces() -> Iterator[None]:
    """Two of them, and a wire between; all that runs in them is ended afterwards."""
    try:
        for name in NAMES:
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "link", "add", "lanes-w1", "netns", NAMES[0], "type", "veth", "peer", "lanes-w2", "netns", NAMES[1])
        for name, address, wire in zip(NAMES, ADDRESSES, ("lanes-w1", "lanes-w2"), strict=True):
            sh("ip", "-n", name, "address", "add", f"{address}/24", "dev", wire)
            sh("ip", "-n", name, "link", "set", wire, "up")
        yield
    finally:
        for name in NAMES:
            end(name)
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def end(name: str, spared: int | None = None) -> None:
    """Kill all that runs in a namespace but one process, as when its machine loses power."""
    told = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True)
    for pid in set(map(int, told.stdout.split())) - {spared}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def inside(name: str, *words: str, hidden: Path | None = None) -> list[str]:
    """A command in a namespace; the files below `hidden` are others there."""
    found = ["ip", "netns", "exec", name]
    if hidden is not None:
        mounted = 'mount -t tmpfs none "$0" && exec "$@"'
        found += ["unshare", "--mount", "sh", "-c", mounted, str(hidden)]
    return [*found, *words]


@contextmanager
def node(
    number: int, runs: Path, environment: Mapping[str, str], spared: int | None, *, alone: bool = False
) -> Iterator[None]:
    """Where it is `alone`, it has room for two lanes, and sees other files than its clients."""
    first = [
        "--head",
        "--port",
        str(PORT),
        "--include-dashboard",
        "false",
        "--ray-client-server-port",
        str(CLIENT_PORT),
    ]
    words = ["-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    words += ["--num-cpus", "2" if alone else "1"]
    words += ["--node-ip-address", ADDRESSES[number], "--object-store-memory", str(100 << 20)]
    words += ["--address", f"{ADDRESSES[0]}:{PORT}"] if number else first
    command = inside(NAMES[number], sys.executable, *words, hidden=runs if number or alone else None)
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        try:
            time.sleep(START_SECONDS)
            yield
        finally:
            end(NAMES[number], spared)


@contextmanager
def store(folder: Path, environment: dict[str, str]) -> Iterator[tuple[str, int | None]]:
    """The URL of a store that both nodes reach: S3 as moto serves it, or a folder where that is not installed."""
    if not all(map(importlib.util.find_spec, ("moto", "boto3", "s3fs"))):
        yield (folder / "store").as_uri(), None
        return
    url = f"http://{ADDRESSES[0]}:{STORE_PORT}"
    environment |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    environment["AWS_ENDPOINT_URL"] = url
    serve = inside(NAMES[0], sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(STORE_PORT))
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            make = "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')"
            for _ in range(20):
                time.sleep(1)
                made = subprocess.run(
                    inside(NAMES[0], sys.executable, "-c", make), env=environment, check=False, capture_output=True
                )
                if made.returncode == 0:
                    break
            yield "s3://bucket/runs", process.pid
        finally:
            process.kill()


def drive(out: Path, on: str | None, shared: str | None, loses: str | None) -> None:
    """By the process that has the run: prints one line of JSON."""
    import torch
    from torch import nn

    from multistep import api
    from multistep.core.values.events import LaneLost, WindowDone
    from multistep.errors import MultistepError

    torch.manual_seed(1)
    torch.set_num_threads(1)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    inputs = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] + inputs[:, 1] ** 2 > 1.0).long()
    lost: list[tuple[float, LaneLost]] = []
    windows, began = 0, 0.0

    def watch(entry: Any, _: Any) -> None:
        nonlocal windows, began
        windows += isinstance(entry.event, WindowDone) and entry.lane == 2
        if windows == 2 and loses and not began:
            began = time.monotonic()
            if loses == "killed":
                end(NAMES[1])
            elif loses == "client":
                os.kill(os.getpid(), signal.SIGKILL)
            elif loses.startswith("node"):
                end(NAMES[0], int(loses.partition(" ")[2] or 0))
            else:
                sh("ip", "-n", NAMES[0], "link", "set", "lanes-w1", "down")
        if isinstance(entry.event, LaneLost):
            lost.append((time.monotonic() - began, entry.event))

    started = time.monotonic()
    found: dict[str, Any] = {}
    try:
        result = api.train(
            model=net,
            loss="cross_entropy",
            train=(inputs[:200], targets[:200]),
            validation=(inputs[200:], targets[200:]),
            recipe={"learning_rate": 3e-2, "batch_size": 20},
            tolerance=0.02,
            moves=["decay-up", "averaging-up"],
            out=out,
            parallel=2 if on else 1,
            on=on,
            shared=shared,
            progress=False,
            device="cpu",
            on_entry=watch,
        )
        found |= {"weights": result.record["weights_sha256"], "verdicts": len(result.verdicts), "windows": windows}
    except MultistepError as error:
        found["refused"] = str(error)
    found["lost"] = [(e.lane, e.trial, e.reason[:160], f"after {after:.0f} s") for after, e in lost]
    print(json.dumps({**found, "seconds": round(time.monotonic() - started)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drive", nargs=4, metavar=("OUT", "ON", "SHARED", "LOSES"), help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=[*CASES, *CLIENTS])
    asked = parser.parse_args()
    if asked.drive:
        out, *rest = asked.drive
        drive(Path(out), *(each or None for each in rest))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left
    with tempfile.TemporaryDirectory(prefix="lanes-") as made, namespaces():
        folder, environment = Path(made), {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        runs = folder / "runs"
        runs.mkdir()
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, [SOURCES, os.environ.get("PYTHONPATH")]))}
        environment |= {"MULTISTEP_LANE_SECONDS": str(LIMIT_SECONDS), "RAY_TMPDIR": made, "RAY_worker_niceness": "0"}

        def run(name: str, on: str = "", shared: str = "", loses: str = "", at: int = 0) -> dict[str, Any]:
            words = [sys.executable, __file__, "--drive", str(runs / name), on, shared, loses]
            told = subprocess.run(
                inside(NAMES[at], *words), env=environment, check=False, capture_output=True, text=True, timeout=900
            )
            lines = told.stdout.strip().splitlines()
            found: dict[str, Any] = (
                json.loads(lines[-1]) if lines else {"died": told.returncode, "": told.stderr[-900:]}
            )
            return found

        def tell(name: str, found: Mapping[str, Any]) -> None:
            print(f"{name}: {found}; same bits: {found.get('weights') == one['weights']}", flush=True)

        one = run("one")
        print("one lane:", one, flush=True)
        with store(folder, environment) as (url, serving):
            for name in [each for each in CASES if asked.only in (None, each)]:
                with ExitStack() as nodes:
                    for number in range(2):
                        nodes.enter_context(node(number, runs, environment, serving))
                    shared = "" if name == "no store" else url
                    loses = name if name in ("killed", "cut") else ""
                    tell(name, run(name.replace(" ", "-"), f"{ADDRESSES[0]}:{PORT}", shared, loses))
                    sh("ip", "-n", NAMES[0], "link", "set", "lanes-w1", "up")
            for name in [each for each in CLIENTS if asked.only in (None, each)]:
                with node(0, runs, environment, serving, alone=True):
                    words = (name.replace(" ", "-"), f"ray://{ADDRESSES[0]}:{CLIENT_PORT}", url)
                    loses = {"client killed": "client", "node lost": f"node {serving or 0}"}.get(name, "")
                    began = time.monotonic()
                    tell(name, run(*words, loses, at=1))
                    print(f"   that took {time.monotonic() - began:.0f} s")
                    if name == "client killed":
                        tell(f"{name}, and started again", run(*words, at=1))
                if name == "node lost":
                    with node(0, runs, environment, serving, alone=True):
                        tell(f"{name}, and started again", run(*words, at=1))


if __name__ == "__main__":
    main()
