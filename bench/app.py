"""How quick is the app for a person, and how much memory do app and REST service take?

A headless Chromium visits the sandbox, which must be up with its models trained. Run it from the project's
folder:

    .venv/bin/python bench/app.py
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright, expect
from rich.console import Console
from rich.table import Table

_MEMORY = Path(__file__).parent / "memory.sh"
_MODELS = ("diabetes", "breast_cancer", "wine")
_PATIENCE_MS = 120_000
_IDLE_SECONDS = 15
_ASK = "stBaseButton-primaryFormSubmit"


async def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8501", help="the app (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=10, help="visits and clicks (default: %(default)s)")
    parser.add_argument("--sessions", type=int, default=20, help="people at once (default: %(default)s)")
    options = parser.parse_args()
    table = Table(title=f"{options.runs} visits, {options.sessions} sessions at once", title_justify="left")
    for heading in ("", "median", "worst"):
        table.add_column(heading, justify="right" if heading else "left")
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
        _row(table, "visit to form", paints)
        _row(table, "click to answer", clicks)
        begun = time.perf_counter()
        pages = await asyncio.gather(
            *(_visit(browser, options.url, _MODELS[0]) for _ in range(options.sessions))
        )
        table.add_row(
            f"{options.sessions} visits at once, all forms there", f"{time.perf_counter() - begun:.1f} s", ""
        )
        together = await asyncio.gather(*(_click(page, turn) for turn, page in enumerate(pages)))
        _row(table, f"{options.sessions} clicks at once, click to answer", together)
        table.add_row("processor, so many pages open and nobody clicking", f"{await _processor():.0%}", "")
        for page in pages:
            await _leave(page)
        await browser.close()
    app, rest = (int(subprocess.check_output([_MEMORY, name])) for name in ("streamlit", "scoring"))  # noqa: S603
    table.add_row(f"memory (PSS): app {app}, REST {rest}, together", f"{app + rest} MiB", "")
    Console(width=100).print(table)
    return 0


async def _visit(browser: Browser, url: str, model: str) -> Page:
    """Open the app as a new visitor, until the form can be sent."""
    page = await (await browser.new_context(viewport={"width": 1280, "height": 900})).new_page()
    await page.goto(f"{url}/?model={model}", timeout=_PATIENCE_MS)
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


async def _processor() -> float:
    """Return how much of one processor the app takes."""
    before = _processor_seconds()
    await asyncio.sleep(_IDLE_SECONDS)
    return (_processor_seconds() - before) / _IDLE_SECONDS


def _processor_seconds() -> float:
    """Return what the app's processes have taken until now, in user and kernel mode."""
    stat = "for pid in $(docker top streamlit -eo pid | tail -n +2); do cat /proc/$pid/stat; done"
    command = ["docker", "exec", "mlstack-sandbox", "sh", "-c", stat]
    found = subprocess.check_output(command, text=True)  # noqa: S603 - our own command
    ticks = (int(value) for line in found.splitlines() for value in line.rsplit(")", 1)[1].split()[11:13])
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


async def _leave(page: Page) -> None:
    await page.context.close()


def _row(table: Table, what: str, seconds: list[float]) -> None:
    table.add_row(what, f"{statistics.median(seconds) * 1000:.0f} ms", f"{max(seconds) * 1000:.0f} ms")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
