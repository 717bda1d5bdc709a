"""Plots of one evaluated model, as PNG bytes.

Drawn on bare figures instead of pyplot: no global state, no backend, nothing to close.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREY, _INK = "#2563a8", "#d9660f", "#9aa3ad", "#1f2933"


def classification(
    title: str, actual: np.ndarray, predicted: np.ndarray, classes: np.ndarray, scores: np.ndarray | None
) -> dict[str, bytes]:
    """Draw confusion matrix and ROC curves.

    Args:
        title: Above each plot.
        actual: True labels, shape (rows,).
        predicted: Predicted labels, shape (rows,).
        classes: The model's classes, shape (classes,).
        scores: A score per row and class, shape (rows, classes); without it there is no ROC plot.

    Returns:
        PNG bytes by file name.
    """
    drawn = {"confusion_matrix.png": _confusion(title, actual, predicted, classes)}
    if scores is not None:
        drawn["roc.png"] = _roc(title, actual, classes, scores)
    return drawn


def regression(title: str, target: str, actual: np.ndarray, predicted: np.ndarray) -> dict[str, bytes]:
    """Draw predicted against actual values, and the residuals.

    Args:
        title: Above each plot.
        target: What is predicted, for the axes.
        actual: True values, shape (rows,).
        predicted: Predicted values, shape (rows,).

    Returns:
        PNG bytes by file name.
    """
    return {
        "predicted_vs_actual.png": _predicted(title, target, actual, predicted),
        "residuals.png": _residuals(title, target, actual, predicted),
    }


def _confusion(title: str, actual: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> bytes:
    counts = metrics.confusion_matrix(actual, predicted, labels=classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 3.4 + 0.35 * len(classes)
    figure, axes = _figure(size + 1.4, size, f"{title}: holdout confusion matrix")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(
        image, ax=axes, fraction=0.046, format=PercentFormatter(1.0), label="share of the actual class"
    )
    many = len(classes) > 6
    for (row, column), count in np.ndenumerate(counts):
        if many and not count:
            continue
        share = shares[row, column]
        text = f"{count}" if many else f"{count}\n{share:.0%}"
        colour = "white" if share > 0.55 else _GREY if count == 0 else _INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8 if many else 10)
    axes.set_xticks(range(len(classes)), classes, rotation=0 if many or len(classes) < 4 else 30)
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.spines[:].set_visible(False)
    return _png(figure)


def _roc(title: str, actual: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> bytes:
    figure, axes = _figure(5.4, 4.8, f"{title}: holdout ROC")
    axes.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color=_GREY, label="chance")
    shown = range(len(classes)) if len(classes) > 2 else [1]
    for index in shown:
        false_rate, true_rate, _ = metrics.roc_curve(actual == classes[index], scores[:, index])
        area = metrics.auc(false_rate, true_rate)
        colour = _BLUE if len(classes) == 2 else f"C{index}"
        axes.plot(
            false_rate,
            true_rate,
            linewidth=2,
            label=f"{classes[index]}: AUC {area:.3f}",
            clip_on=False,
            color=colour,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.legend(
        loc="lower right", frameon=False, fontsize=8, title="each class against the rest" * (len(shown) > 1)
    )
    _tidy(axes)
    return _png(figure)


def _predicted(title: str, target: str, actual: np.ndarray, predicted: np.ndarray) -> bytes:
    figure, axes = _figure(5.4, 4.8, f"{title}: holdout, predicted against actual")
    low, high = min(actual.min(), predicted.min()), max(actual.max(), predicted.max())
    axes.plot([low, high], [low, high], linestyle="--", linewidth=1, color=_GREY, label="perfect")
    axes.scatter(actual, predicted, s=22, alpha=0.65, color=_BLUE, edgecolors="none")
    axes.set_xlabel(f"actual {target}")
    axes.set_ylabel(f"predicted {target}")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=8)
    _tidy(axes)
    return _png(figure)


def _residuals(title: str, target: str, actual: np.ndarray, predicted: np.ndarray) -> bytes:
    figure, axes = _figure(5.4, 4.8, f"{title}: holdout residuals")
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


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, color=_INK)
    return figure, axes


def _tidy(axes: Axes) -> None:
    axes.grid(visible=True, color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
