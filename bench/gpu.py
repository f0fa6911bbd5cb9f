"""What a GPU shows of `multistep`: the tests that need one, then speeds beside bare loops. At most six minutes.

    python bench/gpu.py [--form auto|gpu|cpu] [--parts device,tests,...] [--out build/gpu] [--page FILE]
    python bench/gpu.py --missing      # what is to be carried along as wheels, as pip writes it

It needs a Python with torch, numpy and safetensors, and no network: it says what it left out for want of the rest.
Wheels in the folder that $WHEELS names are installed for its own use first. Each part is a process of its own with a
deadline: one that hangs or fails is cut and named, keeps what it had measured, and the others go on. Writes
OUT/gpu.json and, of all parts, the page docs/gpu.md, and both into $OUT too, where that is set. Without a GPU its short
form runs on the CPU, in less than a minute, to show that the kit works; a page of a GPU's numbers stays as it is.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TOTAL = {"gpu": 350.0, "cpu": 57.0}  # seconds; what is left of six minutes and of one is for the rest
# What is imported under another name than it is installed by is given by both.
PACKAGES = {
    "numpy": "numpy",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "transformers": "transformers",
    "pydantic": "pydantic",
    "ruamel.yaml": "ruamel.yaml",
    "filelock": "filelock",
    "pytest": "pytest",
    "xdist": "pytest-xdist",
    "rich": "rich",
    "sklearn": "scikit-learn",
    "skops": "skops",
    "scipy": "scipy",
    "PIL": "pillow",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "jiwer": "jiwer",
    "peft": "peft",
    "datasets": "datasets",
    "jinja2": "jinja2",
}
BEHIND = {  # what those need in turn, where it is no part of torch's own needs
    "pydantic": ("pydantic_core", "annotated-types", "typing-inspection"),
    "jiwer": ("rapidfuzz",),
    "skops": ("prettytable", "wcwidth"),
    "soundfile": ("cffi", "pycparser"),
    "datasets": ("multiprocess", "dill", "xxhash", "pyarrow", "pandas", "fsspec"),
}


@dataclass(frozen=True)
class Part:
    """`seconds` is its deadline on a GPU, `short` that of its CPU form (0: it has none); what others leave is added."""

    name: str
    module: str
    function: str
    needs: tuple[str, ...]
    seconds: float
    short: float


_LEARNER = ("numpy", "safetensors")
PARTS = (
    Part("device", "gpu_kit", "measure", (), 25, 10),
    Part("tests", "gpu_tests", "measure", (*_LEARNER, "pytest"), 105, 0),
    Part("language", "gpu_language", "measure", _LEARNER, 95, 13),
    Part("preset", "gpu_language", "measure_preset", (*_LEARNER, "tokenizers"), 50, 12),
    Part("images", "gpu_images", "measure", _LEARNER, 40, 10),
    Part("encoder", "gpu_encoder", "measure", (*_LEARNER, "tokenizers", "transformers"), 35, 12),
)


def found_packages() -> dict[str, str | None]:
    """The versions of what the parts may need; None for what is not there."""
    return {name: _version(name, installed) for name, installed in PACKAGES.items()}


def _version(name: str, installed: str) -> str | None:
    try:
        if importlib.util.find_spec(name) is None:
            return None
        return version(installed)
    except PackageNotFoundError:
        return "of unknown version"
    except ImportError:  # ruamel, where nothing of that name is there
        return None


def to_carry(packages: Mapping[str, str | None], lock: str) -> list[str]:
    """NAME==VERSION of what is missing and of what that needs, in the versions of requirements.lock."""
    known = {_plain(name): line for line in lock.splitlines() if (name := line.partition("==")[0]) != line}
    wanted: list[str] = []
    for name, there in packages.items():
        if there is None:
            wanted += [PACKAGES[name], *(one for one in BEHIND.get(name, ()) if not _installed(one))]
    return [known.get(_plain(name), name) for name in wanted]


def _installed(name: str) -> bool:
    with suppress(PackageNotFoundError):
        return bool(version(name))
    return False


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def install_wheels(folder: Path, site: Path) -> str:
    """Unpack the wheels of a folder into `site`; what went wrong, or an empty string."""
    wheels = sorted(map(str, folder.glob("*.whl")))
    if not wheels:
        return f"{folder} holds no wheels"
    shutil.rmtree(site, ignore_errors=True)
    offline = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), *wheels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip() or "pip failed").splitlines()[-1]


def run_part(command: Sequence[str], environment: Mapping[str, str], seconds: float, log: Path) -> tuple[str, str]:
    """Run one part in a process of its own: "done", "failed" or "cut", and why."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=dict(environment), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return "cut", f"cut after {seconds:.0f} s"
        finally:  # with whatever it started itself, such as the compiler's workers
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # a driver that hangs does not let go of it
                process.wait(5)
    if code == 0:
        return "done", ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "failed", (lines[-1] if lines else f"ended with code {code}")[:300]


def run(form: str, names: Sequence[str], out: Path, site: Path | None) -> dict[str, Any]:
    """All parts in turn, and what came of them."""
    began, packages = time.monotonic(), found_packages()
    record: dict[str, Any] = {
        "form": form,
        "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commands": ["make gpu", " ".join(["python", "bench/gpu.py", *sys.argv[1:]])],
        "device": {},
        "packages": packages,
        "missing": to_carry(packages, (ROOT / "requirements.lock").read_text(encoding="utf-8")),
        "left_out": [],
        "parts": {},
    }
    shutil.rmtree(out / "cache", ignore_errors=True)  # of an earlier one, so that all is measured anew
    environment = _environment(out, site)
    wanted = [part for part in PARTS if part.name in names]
    for number, part in enumerate(wanted):
        lacking = [PACKAGES[need] for need in part.needs if packages[need] is None]
        if lacking:
            record["left_out"].append({"what": part.name, "why": f"not installed: {', '.join(lacking)}"})
            continue
        if form == "cpu" and not part.short:
            record["left_out"].append({"what": part.name, "why": "needs a GPU"})
            continue
        later = sum(_deadline(other, form) for other in wanted[number + 1 :])
        left = TOTAL["cpu" if form == "cpu" else "gpu"] - (time.monotonic() - began)
        seconds = max(_deadline(part, form), left - later)
        result, log = out / f"{part.name}.json", out / f"{part.name}.log"
        result.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / "gpu.py"), "--part", part.name, "--form", form, "--result", str(result)]
        started = time.monotonic()
        status, why = run_part([*command, "--peak", str(record["device"].get("peak"))], environment, seconds, log)
        measured = json.loads(result.read_text()) if result.exists() else {"rows": [], "left_out": [], "facts": {}}
        if part.name == "device":
            record["device"] = measured.pop("facts")
            form = record["form"] = "gpu" if record["device"].get("type") == "cuda" else "cpu"
        record["left_out"] += [{**one, "what": f"{part.name}: {one['what']}"} for one in measured.pop("left_out")]
        record["parts"][part.name] = {
            "status": status,
            "why": why,
            "seconds": round(time.monotonic() - started, 1),
            **measured,
        }
        print(f"{part.name}: {status}{f' ({why})' if why else ''}, {time.monotonic() - started:.1f} s", flush=True)
        if part.name == "device" and status != "done":
            sys.exit(f"bench/gpu.py: {sys.executable} has no torch that works here; {log} says why")
    record["seconds"] = round(time.monotonic() - began, 1)
    return record


def _deadline(part: Part, form: str) -> float:
    return part.short if form == "cpu" else part.seconds


def _environment(out: Path, site: Path | None) -> dict[str, str]:
    paths = [str(ROOT / "src"), *([str(site)] if site else []), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(out / "cache"),  # what runs cost here is nothing for the cache of who lent the machine
        "TOKENIZERS_PARALLELISM": "true",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what deterministic products ask for, before CUDA starts
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--form", choices=("auto", "gpu", "cpu"), default="auto")
    parser.add_argument("--parts", default=",".join(part.name for part in PARTS))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument("--page", type=Path, help="docs/gpu.md, unless some parts alone are run")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=lambda text: None if text == "None" else float(text), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        from gpu_kit import Rows, form_here

        part = next(part for part in PARTS if part.name == given.part)
        form = form_here(given.form)
        os.environ["MULTISTEP_DEVICE"] = "cuda" if form == "gpu" else "cpu"
        rows = Rows(given.result, given.peak)
        getattr(importlib.import_module(part.module), part.function)(rows, form)
        rows.write()
        return
    site = given.out / "site" if os.environ.get("WHEELS") else None
    given.out.mkdir(parents=True, exist_ok=True)
    if site is not None:
        if wrong := install_wheels(Path(os.environ["WHEELS"]), site):
            print(f"wheels: {wrong}", flush=True)
        sys.path.insert(0, str(site))
    if given.missing:
        print("\n".join(to_carry(found_packages(), (ROOT / "requirements.lock").read_text(encoding="utf-8"))))
        return
    names = [name for name in given.parts.split(",") if name]
    if unknown := set(names) - {part.name for part in PARTS}:
        parser.error(f"--parts: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(p.name for p in PARTS)}")
    record = run(given.form, ["device", *names], given.out, site)
    from gpu_page import page_of, replaces

    page = page_of(record)
    written = [given.out / "gpu.json"]
    written[0].write_text(json.dumps(record, indent=1), encoding="utf-8")
    whole = {part.name for part in PARTS} <= set(names)
    target: Path | None = given.page or (ROOT / "docs" / "gpu.md" if whole else None)
    if target is not None and replaces(target, record):
        target.write_text(page, encoding="utf-8")
        written.append(target)
    elif target is not None:
        print(f"{target} holds the numbers of a GPU and stays as it is")
    if back := os.environ.get("OUT"):
        Path(back).mkdir(parents=True, exist_ok=True)
        shutil.copy(written[0], back)
        Path(back, "gpu.md").write_text(page, encoding="utf-8")
        logs = [f"=== {log.stem}\n{log.read_text(errors='replace')}" for log in sorted(given.out.glob("*.log"))]
        Path(back, "gpu.log").write_text("\n".join(logs), encoding="utf-8")
    print(page)
    print(f"written: {', '.join(map(str, written))}; {record['seconds']:.0f} s in all")


if __name__ == "__main__":
    main()
