import pytest

from serving.profile import Column, Kind, Seen, Value
from streamlit_app import forms


def columns(*names: str, kind: Kind = "number") -> list[Column]:
    return [Column(name, kind, required=True) for name in names]


def titles(*names: str) -> dict[str, list[str]]:
    return {g.title: [f.column.name for f in g.fields] for g in forms.groups(columns(*names), [])}


def test_few_columns_are_one_group() -> None:
    assert titles("mean radius", "mean area", "mean texture") == {
        "Inputs": ["mean radius", "mean area", "mean texture"]
    }


def test_shared_words_part_many_columns() -> None:
    parts = ["radius", "texture", "area", "concave points", "fractal dimension"]
    names = [*(f"mean {p}" for p in parts), *(f"{p} error" for p in parts), *(f"worst {p}" for p in parts)]
    assert titles(*names) == {"Mean": names[:5], "Error": names[5:10], "Worst": names[10:]}


def test_the_longest_shared_start_wins() -> None:
    names = [f"pixel_{row}_{cell}" for row in range(3) for cell in range(8)]
    assert titles(*names) == {f"Pixel {row}": names[row * 8 : row * 8 + 8] for row in range(3)}


def test_unlike_names_stay_together() -> None:
    assert list(titles(*(f"x{i}" for i in range(20)), "total a", "total b", "total c")) == ["Inputs"]


@pytest.mark.parametrize(
    ("seen", "decimals", "step"),
    [
        ([17.99], 2, 1.0),
        ([0.1184], 4, 0.01),
        ([1001.0], 0, 100.0),
        ([0.0380759064334241], 6, 0.001),
        ([0.0], 1, 0.1),
        ([None], 2, 0.1),
        ([], 2, 0.1),
        ([float("inf"), float("nan"), 2.5], 1, 0.1),
        ([-250, 3], 0, 10.0),
    ],
)
def test_numbers_look_as_in_the_examples(seen: list[Value], decimals: int, step: float) -> None:
    (group,) = forms.groups(columns("a"), [{"a": value} for value in seen])
    assert (group.fields[0].decimals, group.fields[0].step) == (decimals, pytest.approx(step))


def test_integers_step_in_whole_numbers() -> None:
    (group,) = forms.groups(columns("a", kind="integer"), [{"a": 3}])
    assert (group.fields[0].decimals, group.fields[0].step) == (0, 1)


def test_free_text_has_an_area() -> None:
    seen = Seen("text", low=2.0, median=12.0, high=80.0)
    (group,) = forms.groups([Column("note", "text", required=True, seen=seen)], [])
    assert (group.fields[0].widget, group.fields[0].hint) == ("area", "In training: 2 to 80 words, median 12")
    assert forms.typical([group.fields[0].column]) == {"note": None}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("mean radius", "Mean radius"),
        ("malic_acid", "Malic acid"),
        ("_x__y ", "X y"),
        ("ALT", "ALT"),
        ("", ""),
    ],
)
def test_readable(name: str, label: str) -> None:
    assert forms.readable(name) == label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (152.1337, "152.1"),
        (0.97123, "0.9712"),
        (1234567.8, "1,234,568"),
        (-42, "-42.00"),
        (0, "0.000"),
        (1.5e-9, "1.500e-09"),
        (float("nan"), "nan"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert forms.number(value) == text


def test_missing_names_fields_with_their_tab() -> None:
    layout = forms.groups([*columns("a", "b"), Column("c", "text", required=False)], [])
    assert forms.missing(layout, {"a": 0.0, "b": None, "c": None}) == ["B"]
    names = [f"mean {i}" for i in range(7)] + [f"worst {i}" for i in range(7)]
    layout = forms.groups(columns(*names), [])
    row: dict[str, Value] = dict.fromkeys(names, 1.0) | {"worst 3": None}
    assert forms.missing(layout, row) == ["Worst 3 (under Worst)"]
