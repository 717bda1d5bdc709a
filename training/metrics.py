"""Metrics that may rank models, by scikit-learn's names. Labels come from ``serving.contract``."""

from dataclasses import dataclass
from typing import Literal

from serving.contract import metric_direction, metric_label

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Metric:
    """A metric as people read it.

    Attributes:
        scorer: scikit-learn's name of the scorer.
        label: Short name for tables and MLflow keys.
        greater_is_better: Whether a higher natural value is better.
        binary_only: Whether it is defined for two classes only.
    """

    scorer: str
    label: str
    greater_is_better: bool = True
    binary_only: bool = False

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return metric_direction(self.scorer)

    def better(self, one: float, other: float) -> bool:
        """Return whether ``one`` is a better natural value than ``other``."""
        return one > other if self.greater_is_better else one < other


# A list, because importing scikit-learn to ask for it takes longer than the whole --check. The most common
# come first, because an error message lists them in this order. Scorers of clusterings and of rows with
# several labels (*_samples) are left out.
_SCORERS: dict[Task, str] = {
    "classification": """
        accuracy balanced_accuracy f1 f1_macro f1_weighted f1_micro roc_auc roc_auc_ovr roc_auc_ovo
        roc_auc_ovr_weighted roc_auc_ovo_weighted average_precision neg_log_loss neg_brier_score
        precision precision_macro precision_weighted precision_micro
        recall recall_macro recall_weighted recall_micro matthews_corrcoef
        jaccard jaccard_macro jaccard_weighted jaccard_micro top_k_accuracy d2_log_loss_score d2_brier_score
        positive_likelihood_ratio neg_negative_likelihood_ratio
    """,
    "regression": """
        neg_root_mean_squared_error neg_mean_absolute_error neg_median_absolute_error
        neg_mean_absolute_percentage_error r2 neg_mean_squared_error neg_root_mean_squared_log_error
        neg_mean_squared_log_error neg_max_error explained_variance d2_absolute_error_score
        neg_mean_poisson_deviance neg_mean_gamma_deviance
    """,
}
_BINARY_ONLY = {
    "f1",
    "jaccard",
    "neg_negative_likelihood_ratio",
    "positive_likelihood_ratio",
    "precision",
    "recall",
    "roc_auc",
}
METRICS: dict[Task, tuple[Metric, ...]] = {
    task: tuple(
        Metric(
            scorer=scorer,
            label=metric_label(scorer),
            greater_is_better=not scorer.startswith("neg_"),
            binary_only=scorer in _BINARY_ONLY,
        )
        for scorer in scorers.split()
    )
    for task, scorers in _SCORERS.items()
}
# Macro F1 notices a class that is never predicted; accuracy hides it when classes are unequal.
# A threshold for costs is as good as the probabilities, and this is best for true ones.
COST_METRIC = "neg_log_loss"
DEFAULT_METRIC: dict[Task, str] = {
    "classification": "f1_macro",
    "regression": "neg_root_mean_squared_error",
}
