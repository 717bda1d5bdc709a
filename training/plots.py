"""Plots of one evaluated model, as PNG for its run and as SVG for the report.

Drawn on bare figures instead of pyplot: no global state, no backend, nothing to close.
"""

import functools
import io
import re
import threading
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn import metrics

from training.data import some_rows
from training.predictions import Predictions

_BLUE, _ORANGE, _GREY, _INK = "#2563a8", "#d9660f", "#9aa3ad", "#1f2933"
# A column may have any name: two dollar signs in it are no formula. In SVG, text stays text.
mpl.rcParams.update({"text.parse_math": False, "svg.fonttype": "none"})
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_POINTS, _CURVE_ROWS, _BARS, _NAME = 5_000, 20_000, 20, 24


def png(figure: Figure) -> bytes:
    """Write a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Write a figure as an element of HTML, without an id that another figure has as well."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, dpi=150, metadata=_NO_METADATA)
    drawn = buffer.getvalue()
    # Matplotlib numbers its groups from 1 in each figure; what is referred to has a name of its own.
    return re.sub(rb' id="[\w.]+_\d+"', b"", drawn[drawn.index(b"<svg") :])


Save = Callable[[Figure], bytes]


def holdout(title: str, target: str, actual: np.ndarray, predictions: Predictions) -> dict[str, bytes]:
    """Draw how a model does on the holdout.

    Args:
        title: Above each plot.
        target: What is predicted, for the axes.
        actual: True labels or values, shape (rows,).
        predictions: What the model made of these rows.

    Returns:
        PNG bytes by file name: confusion matrix, ROC and precision-recall curves (where the model has
        scores), or predicted against actual values and residuals.
    """
    labels = predictions.labels
    if predictions.classes is None:
        return {
            "predicted_vs_actual.png": predicted_vs_actual(
                f"{title}: holdout, predicted against actual", target, actual, labels
            ),
            "residuals.png": residuals(f"{title}: holdout residuals", target, actual, labels),
        }
    drawn = {"confusion_matrix.png": _confusion(title, actual, labels, predictions.classes)}
    if predictions.scores is not None:
        some = some_rows(len(actual), _CURVE_ROWS)
        curves = (title, actual[some], predictions.classes, predictions.scores[some])
        drawn["roc.png"] = _curves(*curves, kind="ROC")
        drawn["precision_recall.png"] = _curves(*curves, kind="precision-recall")
    return drawn


def learning_curve(
    title: str, label: str, sizes: np.ndarray, fitted: np.ndarray, validated: np.ndarray
) -> bytes:
    """Draw how the score grows with the rows that a model is fitted on.

    Args:
        title: Above the plot.
        label: Name of the metric.
        sizes: Numbers of rows, shape (sizes,).
        fitted: Scores on the rows fitted on, shape (sizes, folds).
        validated: Scores on other rows, shape (sizes, folds).

    Returns:
        PNG bytes.
    """
    figure, axes = _figure(f"{title}: learning curve", 5.4, 4.2)
    for scores, colour, name in ((fitted, _ORANGE, "rows fitted on"), (validated, _BLUE, "other rows")):
        mean, spread = scores.mean(axis=1), scores.std(axis=1)
        axes.fill_between(sizes, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        axes.plot(sizes, mean, marker="o", color=colour, label=name)
    axes.set_xlabel("rows fitted on")
    axes.set_ylabel(label)
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return png(figure)


def permutation_importance(
    title: str, label: str, columns: Sequence[str], drops: np.ndarray, save: Save = png
) -> bytes:
    """Draw how much a model loses when a column is shuffled.

    Args:
        title: Above the plot.
        label: Name of the metric.
        columns: Names of the columns.
        drops: What the metric lost, shape (columns, repeats).
        save: How the figure is written.

    Returns:
        The twenty columns that matter most.
    """
    order = drops.mean(axis=1).argsort()[-_BARS:]
    names = [_shorten(columns[index]) for index in order]
    figure, axes = _figure(f"{title}: permutation importance", 6.4, 1.2 + 0.28 * len(order), left=2.2)
    axes.barh(names, drops[order].mean(axis=1), xerr=drops[order].std(axis=1), color=_BLUE, ecolor=_GREY)
    axes.set_xlabel(f"how much worse {label} gets when the column is shuffled")
    _tidy(axes)
    return save(figure)


def leaderboard(
    title: str, label: str, entries: Sequence[tuple[str, float, float, float]], save: Save = png
) -> bytes:
    """Draw the algorithms of one training by score.

    Args:
        title: Above the plot.
        label: Name of the metric.
        entries: Name, mean and spread over the folds, and holdout score of each algorithm, best first.
        save: How the figure is written.
    """
    names, means, spreads, scores = zip(*reversed(entries), strict=True)
    rows = range(len(names))
    figure, axes = _figure(title, 6.8, 1.4 + 0.3 * len(names), left=1.9)
    axes.errorbar(means, rows, xerr=spreads, fmt="o", color=_BLUE, ecolor=_GREY, label="cross-validated")
    axes.plot(scores, rows, linestyle="", marker="D", markersize=4, color=_ORANGE, label="holdout")
    axes.set_yticks(rows, names)
    axes.set_xlabel(label)
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return save(figure)


def predicted_vs_actual(
    title: str, target: str, actual: np.ndarray, predicted: np.ndarray, save: Save = png
) -> bytes:
    """Draw predicted values against actual ones.

    Args:
        title: Above the plot.
        target: What is predicted.
        actual: True values, shape (rows,); some of them are drawn if there are many.
        predicted: The predicted ones.
        save: How the figure is written.
    """
    some = some_rows(len(actual), _POINTS)
    actual, predicted = actual[some], predicted[some]
    figure, axes = _kept_figure("predicted", title, 5.4, 4.8)
    low, high = min(actual.min(), predicted.min()), max(actual.max(), predicted.max())
    axes.plot([low, high], [low, high], linestyle="--", linewidth=1, color=_GREY, label="perfect")
    axes.scatter(actual, predicted, s=22, alpha=0.65, color=_BLUE, edgecolors="none", rasterized=True)
    axes.set_xlabel(f"actual {target}")
    axes.set_ylabel(f"predicted {target}")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return save(figure)


def residuals(title: str, target: str, actual: np.ndarray, predicted: np.ndarray, save: Save = png) -> bytes:
    """Draw what is left of actual values when the predicted ones are taken away; else as above."""
    some = some_rows(len(actual), _POINTS)
    actual, predicted = actual[some], predicted[some]
    figure, axes = _kept_figure("residuals", title, 5.4, 4.8)
    left = actual - predicted
    axes.axhline(0, linestyle="--", linewidth=1, color=_GREY)
    mean = left.mean()
    axes.axhline(mean, linewidth=1.2, color=_ORANGE, label=f"mean {mean:.3g}")
    axes.scatter(predicted, left, s=22, alpha=0.65, color=_BLUE, edgecolors="none", rasterized=True)
    axes.set_xlabel(f"predicted {target}")
    axes.set_ylabel("actual minus predicted")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return save(figure)


def errors(title: str, target: str, left: np.ndarray) -> bytes:
    """Draw how residuals are distributed.

    Args:
        title: Above the plot.
        target: What is predicted.
        left: Actual minus predicted values, shape (rows,).

    Returns:
        An element of HTML.
    """
    figure, axes = _figure(title, 5.4, 4.0)
    low, high = np.percentile(left, (0.5, 99.5))  # a few huge ones would squeeze all others into one bar
    axes.hist(np.clip(left, low, high), bins=30, color=_BLUE, edgecolor="white", linewidth=0.5)
    axes.axvline(0, linestyle="--", linewidth=1, color=_INK)
    axes.set_xlabel(f"actual minus predicted {target}")
    axes.set_ylabel("rows")
    _tidy(axes)
    return svg(figure)


def reliability(title: str, label: str, said: np.ndarray, seen: np.ndarray, bounds: np.ndarray) -> bytes:
    """Draw how often what was predicted with some probability came true.

    Args:
        title: Above the plot.
        label: What the probability is of.
        said: Mean probability of each bin of rows, shape (bins,).
        seen: Share of these rows for which it came true.
        bounds: Ends of the shares' intervals, shape (2, bins).

    Returns:
        An element of HTML.
    """
    figure, axes = _figure(title, 5.4, 4.6)
    axes.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color=_GREY, label="perfect")
    reach = np.abs(bounds - seen)
    axes.errorbar(
        said, seen, yerr=reach, fmt="o-", color=_BLUE, ecolor=_GREY, label="holdout, with 95 % interval"
    )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"predicted probability of {label}")
    axes.set_ylabel("share of rows for which it came true")
    axes.legend(loc="upper left", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return svg(figure)


def gain(title: str, curves: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> bytes:
    """Draw which share of a class is found when the rows most like it are taken first.

    Args:
        title: Above the plot.
        curves: For each class its name, shares of all rows, and the shares of its own rows among them.

    Returns:
        An element of HTML.
    """
    figure, axes = _figure(title, 5.4, 4.6)
    for index, (name, rows, found) in enumerate(curves):
        colour = _BLUE if len(curves) == 1 else f"C{index}"
        label = _shorten(name) if index < _BARS else None
        axes.plot(rows, found, linewidth=2, color=colour, label=label, clip_on=False)
    axes.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color=_GREY, label="at random")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of all rows, most probable first")
    axes.set_ylabel("share of the class that is among them")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    _tidy(axes)
    return svg(figure)


def dependence(
    title: str,
    label: str,
    places: np.ndarray | Sequence[str],
    curves: Sequence[tuple[str, np.ndarray]],
) -> bytes:
    """Draw how predictions depend on one column on average.

    Args:
        title: Above the plot.
        label: What is predicted.
        places: Values of the column: numbers, dates, or the names of levels.
        curves: For each class (one without a name for regression) its name and the mean prediction at each
            place.

    Returns:
        An element of HTML.
    """
    numbers = places if isinstance(places, np.ndarray) else None
    if numbers is None:
        figure, axes = _figure(_shorten(title), 5.4, 1.4 + 0.28 * len(places), left=1.9)
    else:
        kind = f"dependence {numbers.dtype.kind}{len(curves) > 1}"  # axes of dates, and a legend, would stay
        figure, axes = _kept_figure(kind, _shorten(title), 5.4, 3.6)
    for index, (name, means) in enumerate(curves):
        colour = _BLUE if len(curves) == 1 else f"C{index}"
        if numbers is None:
            axes.plot(means, range(len(places)), "o", color=colour, label=_shorten(name))
        else:
            axes.plot(numbers, means, "o-", markersize=3, color=colour, label=_shorten(name))
    if numbers is None:
        axes.set_yticks(range(len(places)), [_shorten(place) for place in places])
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_xlabel(label)
    else:
        axes.set_ylabel(label)
        if numbers.dtype.kind == "M":
            axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))  # type: ignore[no-untyped-call]
    if len(curves) > 1:
        axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return svg(figure)


def _confusion(title: str, actual: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> bytes:
    counts = metrics.confusion_matrix(actual, predicted, labels=classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_shorten(name) for name in classes]
    longest = max(map(len, names))
    margin = 0.7 + 0.075 * longest
    # Long names are written upright, so that they don't run into each other.
    turned = longest * len(names) > 24
    below = 0.65 + 0.075 * longest * turned
    size = 2.6 + 0.35 * min(len(classes), 40)
    many = len(classes) > 6
    make = _figure if many else functools.partial(_kept_figure, "confusion")  # a colour bar would stay
    figure, axes = make(
        f"{title}: holdout confusion matrix", size + margin + 1.4 * many, size + below + 0.45, margin, below
    )
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if many:
        figure.colorbar(image, ax=axes, format=PercentFormatter(1.0), label="share of the actual class")
    for (row, column), count in np.ndenumerate(counts):
        if many and (not count or len(classes) > _BARS):
            continue
        share = shares[row, column]
        text = f"{count}" if many else f"{count}\n{share:.0%}"
        colour = "white" if share > 0.55 else _GREY if count == 0 else _INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8 if many else 10)
    if len(classes) <= _BARS:
        axes.set_xticks(range(len(classes)), names, rotation=90 * turned)
        axes.set_yticks(range(len(classes)), names)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.spines[:].set_visible(False)
    return png(figure)


def _curves(title: str, actual: np.ndarray, classes: np.ndarray, scores: np.ndarray, *, kind: str) -> bytes:
    figure, axes = _kept_figure(kind, f"{title}: holdout {kind}", 5.4, 4.8)
    shown = range(len(classes)) if len(classes) > 2 else [1]
    shares = []
    for index in shown:
        true = actual == classes[index]
        if kind == "ROC":
            across, up, _ = metrics.roc_curve(true, scores[:, index])
            area = f"AUC {metrics.auc(across, up):.3f}"
        else:
            up, across, _ = metrics.precision_recall_curve(true, scores[:, index])
            area = f"AP {metrics.average_precision_score(true, scores[:, index]):.3f}"
            shares.append(true.mean())
        colour = _BLUE if len(classes) == 2 else f"C{index}"
        label = f"{_shorten(classes[index])}: {area}" if index < _BARS else None
        axes.plot(across, up, linewidth=2, label=label, clip_on=False, color=colour)
    chance = [np.mean(shares)] * 2 if shares else [0, 1]
    axes.plot([0, 1], chance, linestyle="--", linewidth=1, color=_GREY, label="chance")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("false positive rate" if kind == "ROC" else "recall")
    axes.set_ylabel("true positive rate" if kind == "ROC" else "precision")
    many = len(shown) > 1
    axes.legend(
        loc="lower right" if kind == "ROC" else "lower left",
        frameon=False,
        fontsize=8,
        title="each class against the rest" * many,
    )
    _tidy(axes)
    return png(figure)


def _figure(
    title: str, width: float, height: float, left: float = 0.85, below: float = 0.65
) -> tuple[Figure, Axes]:
    """Make a figure of one plot; sizes in inches. Fixed margins: to fit them to the text doubles the time."""
    figure = Figure(figsize=(width, height), dpi=100)
    figure.subplots_adjust(
        left=left / width, right=1 - 0.25 / width, bottom=below / height, top=1 - 0.45 / height
    )
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, color=_INK)
    return figure, axes


def _kept_figure(kind: str, title: str, *size: float) -> tuple[Figure, Axes]:
    """Take the last figure of this kind and size, emptied: to make new axes takes as long as to draw all."""
    figure, axes = _keep_figure(threading.get_ident(), kind, *size)
    for drawn in (*axes.lines, *axes.collections, *axes.images, *axes.texts):
        drawn.remove()
    axes.relim()
    axes.set_title(title, fontsize=11, color=_INK)
    return figure, axes


@functools.lru_cache(maxsize=8)
def _keep_figure(_thread: int, _kind: str, *size: float) -> tuple[Figure, Axes]:
    return _figure("", *size)


def _shorten(name: object) -> str:
    text = str(name)
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}…"


def _tidy(axes: Axes) -> None:
    axes.grid(visible=True, color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
