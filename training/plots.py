"""Plots of one evaluated model, as PNG bytes.

Drawn on bare figures instead of pyplot: no global state, no backend, nothing to close.
"""

import functools
import io
import threading
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn import metrics

from training.data import some_rows
from training.predictions import Predictions

_BLUE, _ORANGE, _GREY, _INK = "#2563a8", "#d9660f", "#9aa3ad", "#1f2933"
_POINTS, _CURVE_ROWS, _BARS, _NAME = 5_000, 20_000, 20, 24


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
        some = some_rows(len(actual), _POINTS)
        return {
            "predicted_vs_actual.png": _predicted(title, target, actual[some], labels[some]),
            "residuals.png": _residuals(title, target, actual[some], labels[some]),
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
    return _png(figure)


def permutation_importance(title: str, label: str, columns: Sequence[str], drops: np.ndarray) -> bytes:
    """Draw how much a model loses when a column is shuffled.

    Args:
        title: Above the plot.
        label: Name of the metric.
        columns: Names of the columns.
        drops: What the metric lost, shape (columns, repeats).

    Returns:
        PNG bytes; the twenty columns that matter most.
    """
    order = drops.mean(axis=1).argsort()[-_BARS:]
    names = [_shorten(columns[index]) for index in order]
    figure, axes = _figure(f"{title}: permutation importance", 6.4, 1.2 + 0.28 * len(order), left=2.2)
    axes.barh(names, drops[order].mean(axis=1), xerr=drops[order].std(axis=1), color=_BLUE, ecolor=_GREY)
    axes.set_xlabel(f"how much worse {label} gets when the column is shuffled")
    _tidy(axes)
    return _png(figure)


def leaderboard(title: str, label: str, entries: Sequence[tuple[str, float, float, float]]) -> bytes:
    """Draw the algorithms of one training by score.

    Args:
        title: Above the plot.
        label: Name of the metric.
        entries: Name, mean and spread over the folds, and holdout score of each algorithm, best first.

    Returns:
        PNG bytes.
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
    return _png(figure)


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
    return _png(figure)


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
    return _png(figure)


def _predicted(title: str, target: str, actual: np.ndarray, predicted: np.ndarray) -> bytes:
    figure, axes = _kept_figure("predicted", f"{title}: holdout, predicted against actual", 5.4, 4.8)
    low, high = min(actual.min(), predicted.min()), max(actual.max(), predicted.max())
    axes.plot([low, high], [low, high], linestyle="--", linewidth=1, color=_GREY, label="perfect")
    axes.scatter(actual, predicted, s=22, alpha=0.65, color=_BLUE, edgecolors="none")
    axes.set_xlabel(f"actual {target}")
    axes.set_ylabel(f"predicted {target}")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return _png(figure)


def _residuals(title: str, target: str, actual: np.ndarray, predicted: np.ndarray) -> bytes:
    figure, axes = _kept_figure("residuals", f"{title}: holdout residuals", 5.4, 4.8)
    residuals = actual - predicted
    axes.axhline(0, linestyle="--", linewidth=1, color=_GREY)
    mean = residuals.mean()
    axes.axhline(mean, linewidth=1.2, color=_ORANGE, label=f"mean {mean:.3g}")
    axes.scatter(predicted, residuals, s=22, alpha=0.65, color=_BLUE, edgecolors="none")
    axes.set_xlabel(f"predicted {target}")
    axes.set_ylabel("actual minus predicted")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return _png(figure)


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


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
