"""Writes what `swarm` measured into the README: the table of ours beside others, and the plots of how cost grows.

`python benches/python/readme.py FIGURES.json`, run in the repository; the plots go to `benches/plots`. Needs matplotlib.
"""

import json
import os
import platform
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PLOTS = ROOT / "benches" / "plots"
COMMAND = "make bench"

COLUMNS = {
    "fanout 100 1": "100 members, one at a time",
    "fanout 100 8": "eight in flight",
    "steady 500": "500 a second",
    "steady 1000": "1,000 a second",
    "fanout 1000 1": "1,000 members, one at a time",
    "fanout 1000 8": "eight in flight",
    "stream": "an answer, 50 pieces a second to 1,000",
}

# What is drawn: the words across and up, and whether it grows by factors.
GROWTH = {
    "growth: room size": ("members of the room", "µs of server CPU per delivery", True),
    "growth: rooms": ("rooms of ten", "µs of server CPU per delivery", True),
    "growth: sockets": ("idle sockets, joined", "MiB more", False),
    "growth: senders": ("senders in one room", "acknowledged messages a second", True),
    "growth: history": ("messages in the room", "ms for 99 of 100 pages", True),
}


class Row(TypedDict):
    """A figure as `swarm --json` writes it."""

    scenario: str
    figure: str
    unit: str
    median: float
    ratio: float | None


def machine() -> str:
    """The processor, its cores and the memory."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = processor[1] if processor else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {name}, {memory:.0f} GiB, Linux {platform.release()}"


def table(rows: list[Row]) -> str:
    """Everybody who took part, and what a delivery cost them as so many times the bare server's."""
    costs = [row for row in rows if row["unit"] == "µs"]
    columns = {name: [row for row in costs if row["scenario"] == name] for name in COLUMNS}
    columns = {name: some for name, some in columns.items() if some}
    names = list(dict.fromkeys(row["figure"] for some in columns.values() for row in some))
    lines = [
        "| | " + " | ".join(COLUMNS[name] for name in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for who in names:
        cells: list[str] = []
        for some in columns.values():
            row = next((row for row in some if row["figure"] == who), None)
            cells.append("" if row is None else cell(row, who))
        lines.append(f"| {who} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(row: Row, who: str) -> str:
    """The ratio; of the bare server itself, what that is in microseconds."""
    if who == "bare fastwebsockets":
        return f"1 ({row['median']:.1f} µs)"
    return "" if row["ratio"] is None else f"{row['ratio']:.2f}"


def plot(plt: Any, rows: list[Row], series: str) -> str | None:
    """Draws one series, and gives the name of the picture."""
    across, up, is_logarithmic = GROWTH[series]
    points = [(int(row["figure"]), row["median"]) for row in rows if row["scenario"] == series]
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(4, 2.6), layout="constrained")
    axes.plot(*zip(*points), marker="o", color="#3367d6")
    if is_logarithmic:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    name = series.removeprefix("growth: ").replace(" ", "-") + ".svg"
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / name, metadata={"Date": None})
    plt.close(figure)
    return name


def between(text: str, mark: str, new: str) -> str:
    """The text with what stands between two marks replaced."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"the README has no {begin} … {end}")
    before, rest = text.split(begin, 1)
    return f"{before}{begin}\n{new}\n{end}{rest.split(end, 1)[1]}"


def main() -> None:
    # Not where this file's types are checked.
    plt: Any = import_module("matplotlib.pyplot")
    # The same figures give the same bytes.
    plt.rcParams["svg.hashsalt"] = "gemini-coop"
    rows: list[Row] = json.loads(Path(sys.argv[1]).read_text())
    readme = README.read_text()
    if any(row["scenario"] in COLUMNS for row in rows):
        head = f"`{COMMAND}` on {machine()}; load and servers share them."
        readme = between(readme, "swarm", f"{head}\n\n{table(rows)}")
    pictures = [(series, name) for series in GROWTH if (name := plot(plt, rows, series))]
    if pictures:
        images = "\n".join(
            f"![{GROWTH[series][1]} by {GROWTH[series][0]}](benches/plots/{name})"
            for series, name in pictures
        )
        readme = between(readme, "growth", images)
    README.write_text(readme)


main()
