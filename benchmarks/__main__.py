"""`python -m benchmarks`: throughput, latency, and how the cost of a stage grows."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from benchmarks.databases import fresh
from benchmarks.measure import CASES, Figures

console = Console()
_COLUMNS = {
    "throughput": ("case", "events", "workflows/s", "stages/s", "submitted/s", "commits"),
    "latency": ("case", "events", "median", "p95"),
    "ratio": ("case", "events", "small, per stage", "large, per stage", "ratio"),
}
_TITLES = {
    "throughput": "Throughput (no-op tasks; submission apart from the run)",
    "latency": "Latency (from orchestrator.start to the end in the store)",
    "ratio": "Growth (one workflow at a time)",
}


def measure(url: str | None, case: str, *, events: bool) -> Figures:
    """Measure one case in a process of its own, on a database of its own."""
    with fresh(url) as database:
        asked = json.dumps({"case": case, "events": events, "url": database})
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.measure", asked],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: Figures = json.loads(ran.stdout)
    return found


def row(case: str, events: bool, found: list[Figures]) -> list[str]:
    """The figures of one case, the median of its repetitions, as a row of its table."""
    start = [CASES[case].title, "on" if events else "off"]
    if "missing" in found[0]:
        return [*start, "not available"]
    one = {name: statistics.median(f[name] for f in found) for name in found[0]}
    match CASES[case].kind:
        case "throughput":
            figures = [
                f"{one['workflows'] / one['ran']:,.0f}",
                f"{one['stages'] / one['ran']:,.0f}",
                f"{one['workflows'] / one['submitted']:,.0f}",
                f"{one['commits']:,.0f}",
            ]
        case "latency":
            figures = [f"{one['median'] * 1000:.2f} ms", f"{one['p95'] * 1000:.2f} ms"]
        case _:
            figures = [
                f"{one['small'] * 1e6:,.0f} µs",
                f"{one['large'] * 1e6:,.0f} µs",
                f"{one['ratio']:.2f}",
            ]
    return [*start, *figures]


def run(
    url: Annotated[
        str | None,
        typer.Option(
            help="A server: each measurement has a new database there. A SQLite file: a new file "
            "beside it. Without: SQLite in the temporary folder."
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Measure so often, show the median.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this case, more than once if you like: {', '.join(CASES)}."),
    ] = None,
    events: Annotated[
        bool | None, typer.Option(help="Only with, or only without, events; without: both.")
    ] = None,
) -> None:
    """Measure the engine on a database of its own."""
    unknown = set(only or ()) - set(CASES)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(CASES)}")
    name = make_url(url).get_backend_name() if url else "SQLite, WAL, synchronous=FULL"
    console.print(f"Database: {name}. Python {sys.version.split()[0]}.", highlight=False)
    chosen = [case for case in CASES if case in (only or CASES)]
    for kind, columns in _COLUMNS.items():
        cases = [case for case in chosen if CASES[case].kind == kind]
        if not cases:
            continue
        table = Table(*columns, title=_TITLES[kind], title_justify="left")
        for column in table.columns[2:]:
            column.justify = "right"
        for case in cases:
            for recorded in (False, True) if events is None else (events,):
                found = [measure(url, case, events=recorded) for _ in range(repeat)]
                table.add_row(*row(case, recorded, found))
        console.print(table)


if __name__ == "__main__":
    typer.run(run)
