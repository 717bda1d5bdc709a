import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import ModelUnusableError
from serving.model import load
from tests.planted import REFUSALS, plant

_AS_MLFLOW_DOES = """
import contextlib, sys
import mlflow.pyfunc
from tests import planted

for folder in sys.argv[1:]:
    with contextlib.suppress(Exception):
        mlflow.pyfunc.load_model(folder).predict(planted.ROWS)
    sys.modules.pop(planted.MODULE, None)
"""


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_planted_model_is_refused_and_its_code_not_run(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    folder = plant(kind, tmp_path / "model", marker)
    with pytest.raises(ModelUnusableError) as refused:
        load(folder, "planted", "1")
    assert re.search(REFUSALS[kind], str(refused.value))
    assert str(refused.value).startswith("Expected ")
    assert not marker.exists()


@pytest.mark.slow
def test_mlflow_itself_would_run_the_planted_code(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    kinds = [kind for kind in REFUSALS if kind != "unnamed_types"]  # which MLflow refuses as well
    folders = [str(plant(kind, tmp_path / kind, tmp_path / f"{kind}.ran")) for kind in kinds]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _AS_MLFLOW_DOES, *folders],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert sorted(marker.stem for marker in tmp_path.glob("*.ran")) == sorted(kinds)
