"""The Python packages: imports point down only, without a circle, and no layer knows the ones above it."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What each package may import, besides itself.
LAYERS: dict[str, set[str]] = {
    "serving": set(),
    "training": {"serving"},
    "scoring": {"serving"},
    "streamlit_app": {"serving"},
    "replication": set(),
    "backup": {"replication"},
    "notify": set(),
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in LAYERS
    for path in (ROOT / package).rglob("*.py")
}


def imports(module: str) -> set[str]:
    """Return our modules that a module imports: at its top, in functions, for the type checker only."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) for name in _named(node) if name in MODULES}


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "relative imports are not used here"
        of_module = [f"{node.module}.{alias.name}" for alias in node.names]
        modules = [name for name in of_module if name in MODULES]
        yield from modules
        if len(modules) < len(of_module):  # a name of the module itself, not only modules of a package
            yield node.module or ""


def test_imports_form_no_circle() -> None:
    try:
        TopologicalSorter({module: imports(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"Expected imports that point down only; got a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("package", LAYERS)
def test_a_package_imports_only_layers_below_it(package: str) -> None:
    above = {
        f"{module} imports {name}"
        for module in MODULES
        if module.split(".")[0] == package
        for name in imports(module)
        if name.split(".")[0] not in LAYERS[package] | {package}
    }
    assert not above


# What can run code of whoever wrote a file, and the one place for each that is needed.
LOADERS = {
    "skops.io.load": {"serving.model"},
    "joblib.load": {"training.backends"},  # a table, from this process to its own workers
}
UNPICKLING = {"load_model", "read_pickle", "Unpickler", "CloudPickler"}
PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}


def test_a_model_is_loaded_in_one_place_and_nothing_is_unpickled() -> None:
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in LOADERS or called.split(".")[-1] in UNPICKLING:
                    found.setdefault(called, set()).add(module)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in PICKLES & {name.split(".")[0] for name in names}:
                    found.setdefault(name, set()).add(module)
    assert found == LOADERS


def test_annotations_are_postponed_only_for_imports_that_the_type_checker_alone_needs() -> None:
    texts = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}
    postponed = {module for module, text in texts.items() if "\nfrom __future__ import annotations\n" in text}
    assert postponed == {module for module, text in texts.items() if "\nif TYPE_CHECKING:\n" in text}
