"""What training, registry, app and REST service agree on by name: each name has its one owner here."""

# Aliases of a registered model. The champion answers; the challenger is the newest candidate that does not.
CHAMPION = "champion"
CHALLENGER = "challenger"

# The file in a model's folder that describes its training rows (serving/profile.py).
PROFILE = "profile.json"

# Types that skops may load besides its own safe ones: each is a part of scikit-learn, numpy or scipy, and
# needed by an algorithm of training/. A written list, never what the file at hand asks for: that would trust
# anything.
TRUSTED_TYPES = (
    "numpy.asarray",
    "numpy.dtype",
    "scipy.interpolate._bsplines.BSpline",
    "scipy.interpolate._bsplines._BSpline",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
)
