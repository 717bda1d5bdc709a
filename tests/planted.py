"""Models that a stranger might register: each runs code if it is loaded as its own files ask.

`plant` writes such a model with MLflow's stock client code. Its code does one thing: it makes a marker file.
"""

import importlib
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import mlflow.pyfunc
import mlflow.sklearn
import pandas as pd
import skops.io
import yaml
from mlflow.models import infer_signature
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.stage import save

ROWS = pd.DataFrame({"age": [1.0, 2.0, 3.0], "income": [2.0, 1.0, 5.0]})
_SIGNATURE = infer_signature(ROWS, [1.0, 2.0, 3.0])
MODULE = "planted_code"


@dataclass(frozen=True)
class Bomb:
    """What runs when it is unpickled."""

    marker: Path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        """Make of unpickling a call."""
        return _write, (str(self.marker), "w")


_write = open  # a builtin: it unpickles in every process


def plant(kind: str, folder: Path, marker: Path) -> Path:
    """Write a model.

    Args:
        kind: A key of REFUSALS.
        folder: Where to; it must not exist.
        marker: The file that its code makes.

    Returns:
        The model's folder.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow does warn of some of these
        _PLANTS[kind](folder, marker)
    marker.unlink(missing_ok=True)  # MLflow asks a model when it writes one
    return folder


def plant_code(folder: Path, marker: Path, factor: int) -> Path:
    """Write a model with a module of its own beside it, which multiplies; the same module for any factor."""
    source = folder.parent / f"{folder.name}-code" / f"{MODULE}.py"
    source.parent.mkdir()
    source.write_text(
        f"open({str(marker)!r}, 'w').close()\n\n\ndef multiply(table):\n    return table * {factor}\n"
    )
    sys.path.insert(0, str(source.parent))
    try:
        function = importlib.import_module(MODULE).multiply
        model = make_pipeline(FunctionTransformer(function), Ridge(alpha=0.0)).fit(ROWS, [1.0, 2.0, 3.0])
        types = [f"{MODULE}.multiply"]
        save(folder, model, ROWS, _SIGNATURE, code_paths=[str(source)], skops_trusted_types=types)
    finally:
        sys.path.remove(str(source.parent))
        sys.modules.pop(MODULE, None)
    marker.unlink(missing_ok=True)
    return folder


def _pickled(serialization_format: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, marker: Path) -> None:
        model = Ridge().fit(ROWS, [1.0, 2.0, 3.0])
        save(
            folder,
            model,
            ROWS,
            _SIGNATURE,
            serialization_format=serialization_format,
            skops_trusted_types=None,
        )
        (folder / "model.pkl").write_bytes(pickle.dumps(Bomb(marker)))

    return write


def _python_model(folder: Path, marker: Path) -> None:
    mlflow.pyfunc.save_model(
        str(folder), python_model=mlflow.pyfunc.PythonModel(), signature=_SIGNATURE, pip_requirements=[]
    )
    (folder / "python_model.pkl").write_bytes(pickle.dumps(Bomb(marker)))


def _named_types(folder: Path, marker: Path) -> None:
    """A model that writes a file when it is asked, in a format that asks for trust; its MLmodel grants it."""
    model = make_pipeline(FunctionTransformer(), Ridge()).fit(ROWS, [1.0, 2.0, 3.0])
    model.set_params(functiontransformer__func=joblib.dump)
    model.set_params(functiontransformer__kw_args={"filename": str(marker)})
    save(folder, Ridge().fit(ROWS, [1.0, 2.0, 3.0]), ROWS, _SIGNATURE)
    skops.io.dump(model, folder / "model.skops")
    types = skops.io.get_untrusted_types(file=folder / "model.skops")
    assert types
    _describe(folder, "sklearn", skops_trusted_types=types)


def _unnamed_types(folder: Path, marker: Path) -> None:
    _named_types(folder, marker)
    _describe(folder, "sklearn", skops_trusted_types=[])


def _code_paths(folder: Path, marker: Path) -> None:
    plant_code(folder, marker, factor=1)


def _loader_module(folder: Path, marker: Path) -> None:
    save(folder, Ridge().fit(ROWS, [1.0, 2.0, 3.0]), ROWS, _SIGNATURE)
    (folder / f"{MODULE}.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n\n\ndef _load_pyfunc(path):\n    return path\n"
    )
    _describe(folder, "python_function", loader_module=MODULE, code=".")


def _describe(folder: Path, flavor: str, **changes: object) -> None:
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["flavors"][flavor] |= changes
    (folder / "MLmodel").write_text(yaml.safe_dump(described))


_PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "pickle": _pickled("pickle"),
    "cloudpickle": _pickled("cloudpickle"),
    "python_model": _python_model,
    "named_types": _named_types,
    "unnamed_types": _unnamed_types,
    "code_paths": _code_paths,
    "loader_module": _loader_module,
}
# What the refusal of each says.
REFUSALS = {
    "pickle": "Expected a scikit-learn model in skops format.*in pickle format",
    "cloudpickle": "Expected a scikit-learn model in skops format.*in cloudpickle format",
    "python_model": "Expected a scikit-learn model in skops format.*got python_function",
    "named_types": r"names its own: joblib\.numpy_pickle\.dump",
    "unnamed_types": r"UntrustedTypesFoundException.*joblib\.numpy_pickle\.dump",
    "code_paths": "code of its own",
    "loader_module": f"code of its own|loader_module.*{MODULE}",
}
