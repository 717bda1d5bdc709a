"""The form of one model. What a person types outlives a new version that has the same columns."""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from itertools import batched

import streamlit as st

from streamlit_app import forms
from streamlit_app.forms import Field, Group
from streamlit_app.models import LoadedModel
from streamlit_app.schema import Value

_COLUMNS = 3
_YES_NO = {True: "Yes", False: "No"}
_FIRST, _LAST = date(1678, 1, 1), date(2261, 12, 31)  # what a model's dates can hold


def show(model: LoadedModel) -> tuple[dict[str, Value] | None, bool]:
    """Draws the form, filled with a typical row, or with an example where nothing is known of the rows.

    Args:
        model: The version that answers.

    Returns:
        The row that was last asked about (None before that, and while something required is empty), and
        whether it was asked in this run.
    """
    layout = forms.groups(model.columns, model.examples)
    known = any(column.seen for column in model.columns)
    start = forms.typical(model.columns) if known or not model.examples else model.examples[0]
    for key, value in _filled(model, layout, start).items():
        st.session_state.setdefault(key, value)
    exact = _exact(model, layout)
    with st.form(f"predict.{model.name}.form"):
        row = _inputs(model, layout, exact=exact)
        with st.container(horizontal=True):
            asked = st.form_submit_button("Predict", type="primary", key="predict", icon=":material/bolt:")
            if model.examples:
                label = "Try an example" if known or len(model.examples) > 1 else "Back to the example"
                turn = (model, layout, not known)
                st.form_submit_button(label, key="example", on_click=_next_example, args=turn)
    answered = f"predict.{model.name}.asked"
    if asked:
        empty = forms.missing(layout, row)
        st.session_state[answered] = None if empty else row
        if empty:
            with st.container(key="missing"):
                st.warning(f"Please fill in: {', '.join(empty)}.", icon=":material/edit:")
    row_asked = st.session_state.get(answered)
    return row_asked, asked and row_asked is not None


def _exact(model: LoadedModel, layout: Sequence[Group]) -> bool:
    """Whether numbers are typed, which also takes those that no training row had."""
    if not any(field.widget == "slider" for group in layout for field in group.fields):
        return False
    return st.toggle(
        "Type exact values",
        key=f"predict.{model.name}.exact",
        persist_state="session",
        on_change=_carry_over,
        args=(model, layout),
        help="Sliders end where the training data ended; typed values may go beyond.",
    )


def _inputs(model: LoadedModel, layout: Sequence[Group], *, exact: bool) -> dict[str, Value]:
    tabs = st.tabs([group.title for group in layout]) if len(layout) > 1 else [st.container()]
    row = {}
    for tab, group in zip(tabs, layout, strict=True):
        for fields in batched(group.fields, _COLUMNS):
            # A whole row at a time: on a phone, where columns stack, the fields keep their order.
            for cell, field in zip(tab.columns(_COLUMNS), fields, strict=False):
                widget = "number" if exact and field.widget == "slider" else field.widget
                with cell:
                    row[field.column.name] = _input(field, widget, _key(model, field, widget))
    return row


def _input(field: Field, widget: forms.Widget, key: str) -> Value:
    label = field.label if field.column.required else f"{field.label} (optional)"
    match widget:
        case "slider" | "number":
            return _number(field, label, key, slider=widget == "slider")
        case "select" | "yes_no":
            options = field.options if widget == "select" else (True, False)
            return st.selectbox(
                label,
                options,
                None,
                lambda option: _YES_NO.get(option, option),
                key=key,
                accept_new_options=field.open,
                persist_state="session",
            )
        case "toggle":
            return st.toggle(label, key=key, persist_state="session")
        case "date" | "moment":
            draw: Callable[..., date | None] = st.date_input if widget == "date" else st.datetime_input
            return draw(
                label,
                None,
                _FIRST,
                _LAST,
                key=key,
                help=field.hint or None,
                format="YYYY-MM-DD",
                persist_state="session",
            )
        case "text":
            return st.text_input(label, key=key, persist_state="session") or None


def _number(field: Field, label: str, key: str, *, slider: bool) -> Value:
    whole = field.column.kind == "integer"
    kind, shown = (int, "%d") if whole else (float, f"%.{field.decimals}f")
    if slider:
        low, high, step = map(kind, (field.low, field.high, field.step))
        chosen: float = st.slider(label, low, high, step=step, format=shown, key=key, persist_state="session")
        return chosen
    step, hint = kind(field.step), field.hint or None
    return st.number_input(
        label, value=None, step=step, format=shown, key=key, help=hint, persist_state="session"
    )


def _key(model: LoadedModel, field: Field, widget: forms.Widget) -> str:
    return f"predict.{model.name}.{widget}.{field.column.name}"


def _filled(model: LoadedModel, layout: Sequence[Group], row: dict[str, Value]) -> dict[str, Value]:
    """What the widgets hold when they show a row."""
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
                case "text":
                    value = value or ""
            held[_key(model, field, field.widget)] = value
    return held


def _carry_over(model: LoadedModel, layout: Sequence[Group]) -> None:
    """Shows in the other kind of widget what was chosen in this one."""
    exact = st.session_state[f"predict.{model.name}.exact"]
    for field in (field for group in layout for field in group.fields if field.widget == "slider"):
        slider, typed = (_key(model, field, widget) for widget in ("slider", "number"))
        if exact:
            st.session_state[typed] = st.session_state[slider]
        else:
            st.session_state[slider] = field.clamped(st.session_state.get(typed))


def _next_example(model: LoadedModel, layout: Sequence[Group], shown: bool) -> None:
    """Fills in the next example; the first one is shown already where a form begins with it."""
    key = f"predict.{model.name}.turn"
    st.session_state[key] = turn = st.session_state.get(key, 0 if shown else -1) + 1
    st.session_state[f"predict.{model.name}.asked"] = None
    example = model.examples[turn % len(model.examples)]
    st.session_state.update(_filled(model, layout, example))
