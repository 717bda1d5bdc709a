"""HTML report: all that a training gave, on one page that can be sent to someone.

It is put together in this process, of what is known when a training ends; what has to be worked out about
the winner comes from a worker (`training.insights`).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from serving.contract import metric_name
from serving.profile import Seen, moment
from serving.rules import Rule
from training import leaderboard, plots, profile
from training.algorithms import BASELINE
from training.checks import CHECKS
from training.console import duration, number, seconds, spread
from training.course import Course
from training.metrics import Metric
from training.page import Figure, Section, Table, render

_COLUMNS, _LEVELS = 200, 5
_HEADLINES = {
    "champion": "There is a new champion",
    "challenger": "The best model is not promoted",
    "ok": "Nothing is promoted",
}


def write(course: Course, insights: Sequence[Section], *, when: str, took: float, url: str) -> bytes:
    """Write the report of a training.

    Args:
        course: What was trained, to its end.
        insights: What is to be seen of its winner.
        when: When the training began, as ISO 8601.
        took: Seconds that it took.
        url: MLflow for a browser; links are left out if it isn't http or https.

    Returns:
        HTML.
    """
    problem = course.problem
    began = when.replace("T", " ").replace("Z", " UTC")
    subtitle = (
        f"Training of {began}, which took {duration(took)}. Predicts {problem.target} ({problem.task})."
    )
    sections = [_decision(course), _data(course), _leaderboard(course), *insights, _checks(course)]
    return render(f"{problem.name}: training report", subtitle, [*sections, _further(course, url)])


def _decision(course: Course) -> Section:
    """Say what the gate decided, in words that need no knowledge of it."""
    outcome, metric, tags = course.outcome, course.problem.scoring, course.outcome.tags
    text = [course.problem.description] if course.problem.description else []
    if "gate_challenger" in tags:
        value = float(tags["gate_challenger"])
        said = (
            f"On {int(tags['gate_rows']):,} rows that it was not fitted on, the best model "
            f"({outcome.winner}) reaches {_name(metric)} {number(value)} ({metric.direction})"
        )
        other = "gate_champion" if "gate_champion" in tags else "gate_baseline"
        if other in tags:
            held = float(tags[other])
            name = (
                f"the present champion, version {tags['gate_against_version']},"
                if other == "gate_champion"
                else "the baseline, which looks at no column,"
            )
            gained = (value - held) * (1 if metric.greater_is_better else -1)
            said += f"; {name} reaches {number(held, value)}. That is "
            said += f"{'better' if gained >= 0 else 'worse'} by {number(abs(gained))}"
            if "gate_low" in tags:
                low, high = (float(tags[end]) for end in ("gate_low", "gate_high"))
                said += (
                    f" (95 % interval of the improvement: {number(low, gained)} to {number(high, gained)})"
                )
        text.append(f"{said}.")
    text.append(f"Decision: {outcome.text}.")
    return Section(_HEADLINES[outcome.status], text)


def _data(course: Course) -> Section:
    problem, data = course.problem, course.data
    train, test = len(data.y_train), len(data.y_test)
    found = profile.described(problem, data)
    by = f"split {problem.split}" if problem.split else "chosen by a hash of what each row holds"
    text = [
        f"{PurePosixPath(data.source).name}: {train + test:,} rows and {data.x_train.shape[1]:,} columns to "
        f"learn from. {train:,} rows to train on, judged in {problem.folds} folds, and {test:,} held out, "
        f"{by}."
    ]
    rows = [_column(column, data.rules.columns) for column in [found["target"], *found["columns"][:_COLUMNS]]]
    rows[0][0] += " (target)"
    head = ["column", "type", "missing", "values", "read as"]
    used = [place for place in range(len(head)) if any(row[place] for row in rows)]
    head, *rows = [[line[place] for place in used] for line in (head, *rows)]
    if (more := len(found["columns"]) - _COLUMNS) > 0:
        text.append(f"The first {_COLUMNS} columns are listed; there are {more:,} more.")
    table = Table("Columns, in the training rows", head, rows)
    return Section("The data as they were read", text, points=data.notes, tables=[table])


def _column(column: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    seen, name = Seen.read(column), str(column["name"])
    if seen.levels:
        listed = list(seen.levels.items())
        values = ", ".join(f"{level} {share:.0%}" for level, share in listed[:_LEVELS])
        more = len(listed) - _LEVELS
        values += f", and {'100 or more' if seen.other else more} others" if more > 0 else ""
    elif seen.low is not None and seen.median is not None and seen.high is not None:
        low, middle, high = (_value(value, seen.kind) for value in (seen.low, seen.median, seen.high))
        values = f"{low} to {high}{' words' * (seen.kind == 'text')}, median {middle}"
    else:
        values = "none"
    read = ", ".join(_read(rules[name])) if name in rules else ""
    return [name, seen.kind, f"{seen.missing:.1%}" if seen.missing else "", values, read]


def _value(value: float, kind: str) -> str:
    if kind == "date":
        return moment(value).isoformat(" ").removesuffix(" 00:00:00")
    return f"{value:,.0f}" if kind == "integer" else f"{value:.4g}"


def _read(rule: Rule) -> Iterator[str]:
    """Say what is unusual about how a column's cells are read."""
    if rule.decimal != ".":
        yield f"decimal {rule.decimal}"
    if rule.thousands:
        yield f"thousands {rule.thousands}"
    if rule.unit:
        yield f"without {rule.unit}"
    if rule.format:
        yield rule.format
    if rule.zoned:
        yield "zones become UTC"
    if rule.far:
        yield "9999-12-31 is missing"
    if rule.missing:
        yield f"missing: {', '.join(sorted(rule.missing))}"


def _leaderboard(course: Course) -> Section:
    problem, metric = course.problem, course.problem.scoring
    ranked = leaderboard.ranked(course.results, metric)
    done = [result for result in ranked if result.completed]
    rows = []
    for rank, result in enumerate(ranked, 1):
        cells = [spread(result), leaderboard.holdout(result, metric), seconds(result.fit_seconds)]
        rows.append(
            [
                result.algorithm + " (baseline)" * (result.algorithm == BASELINE),
                str(rank) if result.completed else "-",
                *(cells if result.completed else ["-", "-", "-"]),
                result.status if result.completed else f"{result.status}: {result.error}",
            ]
        )
    marked = frozenset(i for i, result in enumerate(ranked) if result.algorithm == course.outcome.winner)
    head = ["algorithm", "rank", "cross-validated", "holdout [95 %]", "fit", "status"]
    table = Table(f"{_name(metric)}, {metric.direction}", head, rows, marked)
    text = [
        f"Ranked by {problem.folds}-fold cross-validation (mean ± spread of the folds). The holdout takes no "
        "part in that; its intervals are by the bootstrap."
    ]
    figures = []
    if done:
        entries = [(r.algorithm, r.mean, r.std, r.holdout_score) for r in done]
        drawn = plots.leaderboard(
            course.problem.name, f"{_name(metric)}, {metric.direction}", entries, plots.svg
        )
        figures = [
            Figure(drawn.decode(), f"The algorithms by {_name(metric)}; the table below has the numbers")
        ]
    notes = [f"{r.algorithm} warned: {text}" for r in ranked for text in r.warnings]
    return Section("The algorithms compared", text, points=notes, figures=figures, tables=[table])


def _name(metric: Metric) -> str:
    return metric_name(metric.label)


def _checks(course: Course) -> Section:
    rows = [[f"{f.code}, {CHECKS[f.code]}", f.severity, f.text] for f in course.findings]
    marked = frozenset(place for place, finding in enumerate(course.findings) if finding.found)
    found = len(marked)
    text = f"{found} of {len(rows)} need{'s' * (found == 1)} attention." if found else "None needs attention."
    return Section(
        "Checks", [text], tables=[Table("Findings", ["check", "result", "what was seen"], rows, marked)]
    )


def _further(course: Course, url: str) -> Section:
    url = url.rstrip("/")
    links = []
    if url.startswith(("http://", "https://")):
        winner, version = course.logged.get(course.outcome.winner), course.outcome.version
        if course.run_id:
            run = f"{url}/#/experiments/{course.experiment_id}/runs/"
            links.append(("This training in MLflow", run + course.run_id))
            links += [("The best model's run", run + winner.run_id)] if winner else []
        if version:
            place = f"{url}/#/models/{course.problem.name}/versions/{version}"
            links.append((f"The champion, version {version}", place))
    text = (
        f"The inference app has the champion of {course.problem.name} under that name: its form, its model "
        "card with this report, and what it is asked."
    )
    return Section("How to go on", [text], links=links)
