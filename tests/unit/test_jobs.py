"""Jobs that run side by side: nothing is left out, and what failed is told at the end."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .project import ROOT

MAKEFILE = f"""\
all:
	@{sys.executable} scripts/jobs.py $(TARGETS)
fine other:
	@echo "$@ is at work with options -$(MAKEFLAGS)"
	@echo "3 passed, 1 skipped in 0.12s"
twice: fine other
broken:
	@echo "no such luck, columns: $$COLUMNS, NO_COLOR: $$NO_COLOR"
	@echo "  FAILED tests/test_luck.py::test_luck - assert luck"
	@echo "1 failed, 2 passed in 0.34s"
	@false
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a few small targets."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/jobs.py", tmp_path / "scripts")
    (tmp_path / "Makefile").write_text(MAKEFILE)
    return tmp_path


def run(project: Path, *targets: str, options: str = "-k") -> tuple[int, list[str], dict[str, list[str]]]:
    """Return the exit status, the lines before the table, and the rows of the table by their first word."""
    done = subprocess.run(
        ["make", options, "all", f"TARGETS={' '.join(targets)}"],
        cwd=project,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "AT_ONCE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    table = lines.index("=== summary")
    return done.returncode, lines[:table], {line.split()[0]: line.split()[1:] for line in lines[table + 1 :]}


def test_table_has_each_job_its_time_and_its_tests(project: Path) -> None:
    status, _, rows = run(project, "fine", "twice")
    assert status == 0
    assert list(rows) == ["fine", "twice", "total", "jobs:"]
    assert re.fullmatch(r"passed \dm\d\ds 3 passed", " ".join(rows["fine"]))
    assert rows["twice"][2:] == ["6", "passed"]
    assert " ".join(rows["jobs:"]) == "2 passed, 0 failed, 0 skipped"


def test_all_jobs_run_although_one_fails_and_the_end_of_its_log_is_shown(project: Path) -> None:
    status, before, rows = run(project, "broken", "fine")
    assert status != 0
    wide_and_plain = "no such luck, columns: 200, NO_COLOR: 1"  # else Molecule breaks the names of tests
    assert before.index(wide_and_plain) > before.index("=== the end of .cache/jobs/broken.log")
    assert before[before.index("=== failed tests") + 1] == "tests/test_luck.py::test_luck - assert luck"
    assert "fine is at work" not in " ".join(before)
    assert not re.search("options -.*k", (project / ".cache/jobs/fine.log").read_text())
    assert (rows["broken"][0], rows["fine"][0]) == ("FAILED", "passed")
    assert set(" ".join(rows["broken"][2:]).split(", ")) == {"2 passed", "1 failed"}
    assert " ".join(rows["jobs:"]) == "1 passed, 1 failed, 0 skipped"


def test_job_starts_after_what_it_needs(project: Path) -> None:
    status, before, _ = run(project, "twice:other", "other")
    assert status == 0
    assert [line.split()[0] for line in before if line] == ["other", "twice"]


def test_job_is_skipped_if_what_it_needs_failed(project: Path) -> None:
    status, _, rows = run(project, "broken", "fine:broken", "other")
    assert status != 0
    assert (rows["fine"][0], rows["other"][0]) == ("skipped", "passed")
    assert " ".join(rows["jobs:"]) == "1 passed, 1 failed, 1 skipped"


def test_no_job_is_started_after_a_failure_unless_make_goes_on(project: Path) -> None:
    status, _, rows = run(project, "broken", "fine", options="--stop")
    assert status != 0
    assert rows["fine"][0] == "skipped"


def test_result_of_an_earlier_run_is_not_taken_for_this_one(project: Path) -> None:
    assert run(project, "fine")[2]["fine"][0] == "passed"
    assert run(project, "broken", "fine:broken")[2]["fine"] == ["skipped", "0m00s"]


def test_every_folder_of_tests_and_every_scenario_is_a_job() -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    folders = {path.parent.name for path in ROOT.glob("tests/*/test_*.py")}
    units = {f"unit-{name}" for name in folders - {"provision", "sandbox", "faults"}}
    scenarios = {f"molecule-{path.parent.name}" for path in ROOT.glob("molecule/*/molecule.yml")}
    assert {"test-provision", "test-sandbox", *units, *scenarios} <= {word.split(":")[0] for word in printed}
