"""The form of one model. What a person types outlives a new version that has the same columns."""

from collections.abc import Sequence
from datetime import date, datetime
from itertools import batched

import streamlit as st

from serving.profile import Value
from streamlit_app import forms
from streamlit_app.forms import Field, Group
from streamlit_app.models import AppModel

_COLUMNS = 3
_YES_NO = {True: "Yes", False: "No"}
_FIRST, _LAST = date(1678, 1, 1), date(2261, 12, 31)  # what a model's dates can hold


def asked(model: AppModel) -> tuple[dict[str, Value] | None, bool]:
    """Return the row to predict; known before the form is drawn, so that a long form delays no answer.

    Args:
        model: The version that answers.

    Returns:
        The row that was last asked about (None before that, and while something required is empty), and
        whether it was asked just now.
    """
    row = st.session_state.get(f"predict.{model.name}.asked")
    now = st.session_state.pop(f"predict.{model.name}.now", False)
    return row, now and row is not None


def show(model: AppModel) -> None:
    """Draw the form, filled with a typical row, or with an example where nothing is known of the rows.

    Args:
        model: The version that answers.
    """
    layout = model.layout
    known = any(column.seen for column in model.columns)
    start = forms.typical(model.columns) if known or not model.examples else model.examples[0]
    for key, value in _filled(model, layout, start).items():
        st.session_state.setdefault(key, value)
    exact = _exact(model, layout)
    with st.form(f"predict.{model.name}.form"):
        widgets = _inputs(model, layout, exact=exact)
        with st.container(horizontal=True):
            st.form_submit_button(
                "Predict",
                type="primary",
                key="predict",
                icon=":material/bolt:",
                on_click=_ask,
                args=(model, layout, widgets),
            )
            if model.examples:
                label = "Try an example" if known or len(model.examples) > 1 else "Back to the example"
                turn = (model, layout, not known)
                st.form_submit_button(label, key="example", on_click=_next_example, args=turn)
    if empty := st.session_state.pop(f"predict.{model.name}.empty", None):
        with st.container(key="missing"):
            st.warning(f"Please fill in: {', '.join(empty)}.", icon=":material/edit:")


def _ask(model: AppModel, layout: Sequence[Group], widgets: dict[str, str]) -> None:
    """Take the row from the widgets, if nothing required is empty."""
    row = {name: model.read(name, st.session_state[key]) for name, key in widgets.items()}
    empty = forms.missing(layout, row)
    st.session_state[f"predict.{model.name}.asked"] = None if empty else row
    st.session_state[f"predict.{model.name}.empty"] = empty
    st.session_state[f"predict.{model.name}.now"] = True


def _exact(model: AppModel, layout: Sequence[Group]) -> bool:
    """Return whether numbers are typed, which allows values outside the training range."""
    if not any(field.widget == "slider" for group in layout for field in group.fields):
        return False
    return st.toggle(
        "Type exact values",
        key=f"predict.{model.name}.exact",
        persist_state="session",
        on_change=_carry_over,
        args=(model, layout),
        help="Sliders cover the range of the training data; typed values may go beyond it.",
    )


def _inputs(model: AppModel, layout: Sequence[Group], *, exact: bool) -> dict[str, str]:
    """Draw the fields; return the key of each column's widget."""
    tabs = st.tabs([group.title for group in layout]) if len(layout) > 1 else [st.container()]
    keys = {}
    for tab, group in zip(tabs, layout, strict=True):
        for fields in batched(group.fields, _COLUMNS):
            # A whole row at a time: on a phone, where columns stack, the fields keep their order.
            for cell, field in zip(tab.columns(_COLUMNS), fields, strict=False):
                widget = "number" if exact and field.widget == "slider" else field.widget
                keys[field.column.name] = _key(model, field, widget)
                with cell:
                    _input(field, widget, keys[field.column.name])
    return keys


def _input(field: Field, widget: forms.Widget, key: str) -> None:
    label = field.label if field.column.required else f"{field.label} (optional)"
    match widget:
        case "slider" | "number":
            _number(field, label, key, slider=widget == "slider")
        case "select" | "yes_no":
            st.selectbox(
                label,
                field.options if widget == "select" else (True, False),
                None,
                lambda option: _YES_NO.get(option, option),
                key=key,
                accept_new_options=field.open,
                persist_state="session",
            )
        case "toggle":
            st.toggle(label, key=key, persist_state="session")
        case "date" | "moment":
            draw = st.date_input if widget == "date" else st.datetime_input
            ends = {"min_value": _FIRST, "max_value": _LAST, "format": "YYYY-MM-DD"}
            hint = field.hint or None
            draw(label, None, key=key, help=hint, persist_state="session", **ends)  # type: ignore[call-overload]
        case "text":
            st.text_input(label, key=key, persist_state="session")
        case "area":
            st.text_area(label, key=key, help=field.hint or None, persist_state="session")


def _number(field: Field, label: str, key: str, *, slider: bool) -> None:
    whole = field.column.kind == "integer"
    kind, shown = (int, "%d") if whole else (float, f"%.{field.decimals}f")
    if slider:
        low, high, step = map(kind, (field.low, field.high, field.step))
        st.slider(label, low, high, step=step, format=shown, key=key, persist_state="session")
        return
    step, hint = kind(field.step), field.hint or None
    st.number_input(label, value=None, step=step, format=shown, key=key, help=hint, persist_state="session")


def _key(model: AppModel, field: Field, widget: forms.Widget) -> str:
    return f"predict.{model.name}.{widget}.{field.column.name}"


def _filled(model: AppModel, layout: Sequence[Group], row: dict[str, Value]) -> dict[str, Value]:
    """Return what the widgets hold when they show a row."""
    held: dict[str, Value] = {}
    for group in layout:
        for field in group.fields:
            value = row[field.column.name]
            match field.widget:
                case "slider":
                    held[_key(model, field, "number")] = value
                    value = field.clamped(value)
                case "date" if isinstance(value, datetime):
                    value = value.date()
                case "toggle":
                    value = bool(value)
                case "select" if value not in field.options and not field.open:
                    value = None
                case "text" | "area":
                    value = value or ""
            held[_key(model, field, field.widget)] = value
    return held


def _carry_over(model: AppModel, layout: Sequence[Group]) -> None:
    """Show in the other kind of widget what was chosen in this one."""
    exact = st.session_state[f"predict.{model.name}.exact"]
    for field in (field for group in layout for field in group.fields if field.widget == "slider"):
        slider, typed = (_key(model, field, widget) for widget in ("slider", "number"))
        if exact:
            st.session_state[typed] = st.session_state[slider]
        else:
            st.session_state[slider] = field.clamped(st.session_state.get(typed))


def _next_example(model: AppModel, layout: Sequence[Group], shown: bool) -> None:
    """Fill in the next example; the first one is shown already where a form begins with it."""
    key = f"predict.{model.name}.turn"
    st.session_state[key] = turn = st.session_state.get(key, 0 if shown else -1) + 1
    st.session_state[f"predict.{model.name}.asked"] = None
    example = model.examples[turn % len(model.examples)]
    st.session_state.update(_filled(model, layout, example))
