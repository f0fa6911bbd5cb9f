"""Copies reports into docs/gallery and photographs them for docs/pictures, by day and by night.

    python bench/pictures.py FOLDER [--only PICTURE,...] [--call PATH=NAME ...]        # needs chromium and pillow

FOLDER holds the runs of docs/gallery.md, each under the name that it has there; that page has their commands. In the
copies the folder of the runs is called /home/you/runs, and other paths as `--call` says; nothing else is changed. A
picture shows the sections of a report that are named below, one under the other as they stand there, and of its charts
those whose names begin so.
"""

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

DOCS = Path(__file__).parents[1] / "docs"
HOME = "/home/you/runs"
ANSWER, SHORT, CURVES, TRIED = "The answer", "In short", "Training", "What was tried"
PICTURES = {  # picture -> its run, the sections, the charts
    "report": ("reviews", (ANSWER, SHORT), ()),
    "text": ("text", (ANSWER,), ()),
    "language": ("language", (ANSWER,), ()),
    "images": ("images", (ANSWER,), ()),
    "speech": ("speech", (ANSWER,), ()),
    "own": ("own", (ANSWER,), ()),
    "baseline": ("baseline", (ANSWER, SHORT), ()),
    "proven": ("proven", (ANSWER, CURVES, TRIED), ("Loss,",)),
}
# What is not in the picture is taken out of the page once its own script has run.
CUT = """<script>addEventListener("load", () => {
  const sections = %s, charts = %s
  for (const section of document.querySelectorAll("main > section")) {
    const heading = section.querySelector("h2")
    if (!sections.includes(section.getAttribute("aria-label") || heading.textContent.trim())) section.remove()
  }
  for (const chart of document.querySelectorAll("main figure"))
    if (!charts.some(name => chart.querySelector("h3").textContent.trim().startsWith(name))) chart.remove()
})</script></body>"""
WIDTH, TALLEST = 900, 4000  # CSS pixels; a picture ends where the page does
SCALE = 1.2
COLOURS = 96


def copied(folder: Path, name: str, called: list[str]) -> str:
    """The report of that run with its paths shortened, written to docs/gallery."""
    html = (folder / name / "report.html").read_text(encoding="utf-8")
    for path, _, short in (call.partition("=") for call in [f"{folder}={HOME}", *called]):
        html = html.replace(path, short)
    (DOCS / "gallery").mkdir(exist_ok=True)
    (DOCS / "gallery" / f"{name}.html").write_text(html, encoding="utf-8")
    return html


def photographed(html: str, dark: bool, to: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        page, shot = Path(place) / "page.html", Path(place) / "shot.png"
        page.write_text(html, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"]
        looks = [f"--blink-settings=preferredColorScheme={int(not dark)}", f"--force-device-scale-factor={SCALE}"]
        size = [f"--user-data-dir={place}/profile", f"--window-size={WIDTH},{TALLEST}", f"--screenshot={shot}"]
        subprocess.run(["chromium", *flags, *looks, *size, page.as_uri()], capture_output=True, check=True)
        picture = Image.open(shot).convert("RGB")
    empty = Image.new("RGB", picture.size, picture.getpixel((0, picture.height - 1)))
    _, _, _, bottom = ImageChops.difference(picture, empty).getbbox() or (0, 0, 0, picture.height)
    picture = picture.crop((0, 0, picture.width, min(bottom + 24, picture.height)))
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).save(to, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(PICTURES))
    parser.add_argument("--call", action="append", default=[], metavar="PATH=NAME")
    given = parser.parse_args()
    (DOCS / "pictures").mkdir(exist_ok=True)
    for name in given.only.split(","):
        run, sections, charts = PICTURES[name]
        html = copied(given.folder.resolve(), run, given.call)
        html = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", html)  # it runs no script but its own
        html = html.replace("</body>", CUT % (json.dumps(sections), json.dumps(charts)))
        for dark in (False, True):
            to = DOCS / "pictures" / f"{name}{'-dark' if dark else ''}.png"
            photographed(html, dark, to)
            print(f"{to.relative_to(DOCS)}: {to.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
