"""What training, registry, app and REST service agree on by name: each name has its one owner here."""

import os
from typing import Final

# The version of MLflow whose contract is kept: what /version answers. requirements/mlflow.in pins the server.
MLFLOW_VERSION = "3.17.2"

# Aliases of a registered model. The champion answers; the challenger is the newest candidate that does not.
CHAMPION = "champion"
CHALLENGER = "challenger"

# Files: of a model (serving/profile.py, training/fitted.py), and of a training's run.
PROFILE = "profile.json"
FITTED_ROWS = "fitted_rows.npy"
FITTED_UNITS = "fitted_units.npz"
LEADERBOARD = "leaderboard.json"
CHECKS = "checks.json"
REPORT = "report.html"
PLOTS = "plots"  # the folder of a model's run that holds its plots


class VersionTag:
    """Tags of a version: what training and gate write, and app and `status` read."""

    TASK: Final = "task"
    METRIC: Final = "metric"  # scikit-learn's name of the scorer
    ALGORITHM: Final = "model"
    CV_SCORE: Final = "cv_score"
    CV_STD: Final = "cv_std"
    HOLDOUT_SCORE: Final = "holdout_score"
    DATA_DIGEST: Final = "data_digest"
    CODE_VERSION: Final = "code_version"
    GATE_DECISION: Final = "gate_decision"  # promote or keep
    GATE_IMPROVEMENT: Final = "gate_improvement"
    GATE_CONFIDENCE: Final = "gate_confidence"
    GATE_AT: Final = "gate_at"
    REASON: Final = "promotion"  # of the gate or of a person, in a sentence
    PROMOTED_AT: Final = "promoted_at"
    PROMOTED_BY: Final = "promoted_by"  # a person, or "gate"
    PREVIOUS_CHAMPION: Final = "previous_champion"
    ROLLED_BACK: Final = "rolled_back"


class ModelTag:
    """Tags of a registered model."""

    HISTORY: Final = "champion_history"  # the champions up to the present one, oldest first


class RunTag:
    """Tags of a run, MLflow's own included."""

    TRAINING: Final = "mlstack.training"
    PROBLEM: Final = "mlstack.problem"
    ALGORITHM: Final = "mlstack.model"
    JOB: Final = "mlstack.job"
    NOTE: Final = "mlflow.note.content"
    PARENT: Final = "mlflow.parentRunId"
    COMMIT: Final = "mlflow.source.git.commit"


# scikit-learn's name of a scorer: the short label (tables, keys of metrics in MLflow), the name for people.
# A scorer whose name begins with neg_ is better when its natural value is lower.
_METRICS: dict[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "f1": ("f1", "F1"),
    "f1_macro": ("f1_macro", "F1 (macro)"),
    "f1_weighted": ("f1_weighted", "F1 (weighted)"),
    "f1_micro": ("f1_micro", "F1 (micro)"),
    "roc_auc": ("roc_auc", "ROC AUC"),
    "roc_auc_ovr": ("roc_auc_ovr", "ROC AUC (one-vs-rest)"),
    "roc_auc_ovo": ("roc_auc_ovo", "ROC AUC (one-vs-one)"),
    "roc_auc_ovr_weighted": ("roc_auc_ovr_weighted", "ROC AUC (one-vs-rest, weighted)"),
    "roc_auc_ovo_weighted": ("roc_auc_ovo_weighted", "ROC AUC (one-vs-one, weighted)"),
    "average_precision": ("average_precision", "Average precision"),
    "neg_log_loss": ("log_loss", "Log loss"),
    "neg_brier_score": ("brier_score", "Brier score"),
    "precision": ("precision", "Precision"),
    "precision_macro": ("precision_macro", "Precision (macro)"),
    "precision_weighted": ("precision_weighted", "Precision (weighted)"),
    "precision_micro": ("precision_micro", "Precision (micro)"),
    "recall": ("recall", "Recall"),
    "recall_macro": ("recall_macro", "Recall (macro)"),
    "recall_weighted": ("recall_weighted", "Recall (weighted)"),
    "recall_micro": ("recall_micro", "Recall (micro)"),
    "matthews_corrcoef": ("matthews_corrcoef", "Matthews correlation"),
    "jaccard": ("jaccard", "Jaccard index"),
    "jaccard_macro": ("jaccard_macro", "Jaccard index (macro)"),
    "jaccard_weighted": ("jaccard_weighted", "Jaccard index (weighted)"),
    "jaccard_micro": ("jaccard_micro", "Jaccard index (micro)"),
    "top_k_accuracy": ("top_k_accuracy", "Top-k accuracy"),
    "d2_log_loss_score": ("d2_log_loss_score", "D² of the log loss"),
    "d2_brier_score": ("d2_brier_score", "D² of the Brier score"),
    "positive_likelihood_ratio": ("positive_likelihood_ratio", "Positive likelihood ratio"),
    "neg_negative_likelihood_ratio": ("negative_likelihood_ratio", "Negative likelihood ratio"),
    "neg_root_mean_squared_error": ("rmse", "RMSE"),
    "neg_mean_absolute_error": ("mae", "MAE"),
    "neg_median_absolute_error": ("median_ae", "Median absolute error"),
    "neg_mean_absolute_percentage_error": ("mape", "MAPE"),
    "r2": ("r2", "R²"),
    "neg_mean_squared_error": ("mean_squared_error", "MSE"),
    "neg_root_mean_squared_log_error": ("root_mean_squared_log_error", "RMSLE"),
    "neg_mean_squared_log_error": ("mean_squared_log_error", "MSLE"),
    "neg_max_error": ("max_error", "Maximum error"),
    "explained_variance": ("explained_variance", "Explained variance"),
    "d2_absolute_error_score": ("d2_absolute_error_score", "D² of the absolute error"),
    "neg_mean_poisson_deviance": ("mean_poisson_deviance", "Mean Poisson deviance"),
    "neg_mean_gamma_deviance": ("mean_gamma_deviance", "Mean gamma deviance"),
}
_NAMES = dict(_METRICS.values())


def metric_label(scorer: str) -> str:
    """Return the short label of a scorer: `rmse` for `neg_root_mean_squared_error`."""
    return _METRICS[scorer][0] if scorer in _METRICS else scorer.removeprefix("neg_")


def metric_name(label: str) -> str:
    """Return what people call a metric, by its label or its scorer: `ROC AUC` for `roc_auc`."""
    label = metric_label(label)
    return _NAMES.get(label, label.replace("_", " ").capitalize())


def metric_direction(scorer: str) -> str:
    """Return which way is better, in words."""
    return "lower is better" if scorer.startswith("neg_") else "higher is better"


# Types that skops may load besides its own safe ones: each is a part of scikit-learn, numpy or scipy, and
# needed by an algorithm of training/. A written list, never what the file at hand asks for: that would trust
# anything.
TRUSTED_TYPES = (
    "functools.partial",  # what it calls must be trusted as well
    "numpy.asarray",
    "numpy.dtype",
    "numpy.interp",
    "numpy.ravel",
    "numpy.reshape",
    "pandas.to_datetime",
    "scipy.interpolate._bsplines.BSpline",
    "scipy.interpolate._bsplines._BSpline",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.model_selection._split.KFold",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",  # a dictionary; what it holds must be trusted as well
    "sklearn.utils.validation.check_array",
)
TRUSTED_TYPES_VARIABLE = "MLSTACK_TRUSTED_TYPES"  # more of them, separated by spaces, on an operator's word


def trusted_types() -> tuple[str, ...]:
    """List the types that skops may load in this process: the written ones, and those of the operator."""
    return (*TRUSTED_TYPES, *os.environ.get(TRUSTED_TYPES_VARIABLE, "").split())
