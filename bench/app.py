"""How quick is the app for a person, and what does it cost the app and the browsers?

A headless Chromium visits the app, whose models must be trained. On the sandbox, from the project's folder:

    .venv/bin/python bench/app.py

On any other, such as that of `make dev`, name its address. Its CPU time is known if its process is named too;
memory is measured in the sandbox only:

    .venv/bin/python bench/app.py --url http://127.0.0.1:8501 --pid PID
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.async_api import Browser, Page, async_playwright, expect
from rich.console import Console
from rich.table import Table

_MEMORY = Path(__file__).parent / "memory.sh"
_MODELS = ("diabetes", "breast_cancer", "wine")
_PATIENCE_MS = 120_000
_IDLE_SECONDS = 15
_ASK = "stBaseButton-primaryFormSubmit"


@dataclass(frozen=True)
class _Spent:
    """What was spent until a moment, in seconds; CPU time of the app is None where it can't be seen."""

    wall: float
    browser: float
    app: float | None

    @classmethod
    def now(cls, pid: int | None) -> _Spent:
        return cls(time.perf_counter(), _tree_seconds(psutil.Process()), _app_seconds(pid))

    def since(self, before: _Spent) -> tuple[str, str, str]:
        """Return wall time and the CPU time of browser and app, in words."""
        app = "?" if self.app is None or before.app is None else f"{self.app - before.app:.1f} s"
        return f"{self.wall - before.wall:.1f} s", f"{self.browser - before.browser:.1f} s", app


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8501", help="the app (default: %(default)s)")
    parser.add_argument("--pid", type=int, help="the app's process (default: the sandbox's containers)")
    parser.add_argument("--runs", type=int, default=10, help="visits and clicks (default: %(default)s)")
    parser.add_argument("--sessions", type=int, default=20, help="people at once (default: %(default)s)")
    return asyncio.run(_measure(parser.parse_args(argv)))


async def _measure(options: argparse.Namespace) -> int:
    alone = Table("", "median", "worst", title=f"{options.runs} visits, one after the other")
    together = Table("", "wall", "CPU browser", "CPU app", title=f"{options.sessions} at once")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for model in _MODELS:
            await _leave(await _visit(browser, options.url, model))
        paints, clicks = [], []
        for _ in range(options.runs):
            begun = time.perf_counter()
            page = await _visit(browser, options.url, _MODELS[0])
            paints.append(time.perf_counter() - begun)
            clicks.append(await _click(page, 0))
            await _leave(page)
        for what, seconds in (("visit to form", paints), ("click to answer", clicks)):
            middle, worst = statistics.median(seconds), max(seconds)
            alone.add_row(what, f"{middle * 1000:.0f} ms", f"{worst * 1000:.0f} ms")
        before = _Spent.now(options.pid)
        pages = await asyncio.gather(
            *(_visit(browser, options.url, _MODELS[0]) for _ in range(options.sessions))
        )
        visited = _Spent.now(options.pid)
        together.add_row("visits, all forms there", *visited.since(before))
        taken = await asyncio.gather(*(_click(page, turn) for turn, page in enumerate(pages)))
        together.add_row("two clicks each, and typing", *_Spent.now(options.pid).since(visited))
        together.add_row("second click to answer, median", f"{statistics.median(taken):.1f} s")
        together.add_row("second click to answer, worst", f"{max(taken):.1f} s")
        before = _Spent.now(options.pid)
        await asyncio.sleep(_IDLE_SECONDS)
        together.add_row("pages open, nobody clicks", *_Spent.now(options.pid).since(before))
        for page in pages:
            await _leave(page)
        await browser.close()
    console = Console(width=100)
    console.print(alone)
    console.print(together)
    if options.pid is None and before.app is not None:
        app, rest = (int(subprocess.check_output([_MEMORY, name])) for name in ("streamlit", "scoring"))  # noqa: S603
        console.print(f"memory (PSS): app {app} MiB, REST {rest} MiB, together {app + rest} MiB")
    return 0


async def _visit(browser: Browser, url: str, model: str) -> Page:
    """Open the app as a new visitor, until the form can be sent."""
    page = await (await browser.new_context(viewport={"width": 1280, "height": 900})).new_page()
    page.set_default_timeout(_PATIENCE_MS)
    await page.goto(f"{url}/?model={model}")
    await expect(page.get_by_test_id(_ASK)).to_be_visible(timeout=_PATIENCE_MS)
    return page


async def _click(page: Page, turn: int) -> float:
    """Predict another row; return the seconds until its answer is there."""
    await page.get_by_text("Type exact values").click()
    field = page.get_by_role("spinbutton").first
    await expect(field).to_be_editable(timeout=_PATIENCE_MS)
    answer = page.locator(".st-key-prediction").get_by_test_id("stMetricValue")
    await page.get_by_test_id(_ASK).click()
    await expect(answer).to_be_visible(timeout=_PATIENCE_MS)
    await page.wait_for_timeout(1500)  # until all that belongs to that answer is drawn
    before = await answer.inner_text()
    await page.get_by_role("spinbutton", name="Body mass index").fill(f"{0.1 + turn / 1000}")
    begun = time.perf_counter()
    await page.get_by_test_id(_ASK).click()
    await expect(answer).not_to_have_text(before, timeout=_PATIENCE_MS)
    taken = time.perf_counter() - begun
    await expect(page.get_by_test_id("stException")).to_have_count(0)
    return taken


def _tree_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process, its living descendants and those that it waited for."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += sum(one.cpu_times()[:4])
    return total


def _app_seconds(pid: int | None) -> float | None:
    """Return the CPU time of the app: of the process named, or of the sandbox's container if there is one."""
    if pid is not None:
        return _tree_seconds(psutil.Process(pid))
    if not shutil.which("docker"):
        return None
    stat = "for pid in $(docker top streamlit -eo pid | tail -n +2); do cat /proc/$pid/stat; done"
    command = ["docker", "exec", "mlstack-sandbox", "sh", "-c", stat]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - our own command
    ticks = [int(value) for line in found.splitlines() for value in line.rsplit(")", 1)[1].split()[11:13]]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


async def _leave(page: Page) -> None:
    await page.context.close()


if __name__ == "__main__":
    sys.exit(main())
