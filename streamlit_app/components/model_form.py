"""The form of one model. What a person types outlives a new version that has the same columns."""

from collections.abc import Sequence
from itertools import batched

import streamlit as st

from streamlit_app import forms
from streamlit_app.forms import Column, Field, Group, Value
from streamlit_app.registry import LoadedModel

_COLUMNS = 3
_YES_NO = {True: "Yes", False: "No"}


def show(model: LoadedModel) -> dict[str, Value] | None:
    """Draws the form, filled with the first example.

    Args:
        model: The version that answers.

    Returns:
        The row that was last asked about; None before that, and while something required is empty.
    """
    layout = forms.groups(model.columns, model.examples)
    for key, value in _filled(model, 0).items():
        st.session_state.setdefault(key, value)
    with st.form(f"predict.{model.name}.form"):
        row = _inputs(model, layout)
        with st.container(horizontal=True):
            asked = st.form_submit_button("Predict", type="primary", key="predict", icon=":material/bolt:")
            if model.examples:
                label = "Try another example" if len(model.examples) > 1 else "Back to the example"
                st.form_submit_button(label, key="example", on_click=_next_example, args=(model,))
    answered = f"predict.{model.name}.asked"
    if asked:
        empty = forms.missing(layout, row)
        st.session_state[answered] = None if empty else row
        if empty:
            with st.container(key="missing"):
                st.warning(f"Please fill in: {', '.join(empty)}.", icon=":material/edit:")
    return st.session_state.get(answered)


def _inputs(model: LoadedModel, layout: Sequence[Group]) -> dict[str, Value]:
    tabs = st.tabs([group.title for group in layout]) if len(layout) > 1 else [st.container()]
    row = {}
    for tab, group in zip(tabs, layout, strict=True):
        for fields in batched(group.fields, _COLUMNS):
            # A whole row at a time: on a phone, where columns stack, the fields keep their order.
            for cell, field in zip(tab.columns(_COLUMNS), fields, strict=False):
                with cell:
                    row[field.column.name] = _input(field, _key(model, field.column))
    return row


def _input(field: Field, key: str) -> Value:
    label = field.label if field.column.required else f"{field.label} (optional)"
    match field.column.kind:
        case "number":
            shown = f"%.{field.decimals}f"
            return st.number_input(
                label, value=None, step=field.step, format=shown, key=key, persist_state="session"
            )
        case "integer":
            return st.number_input(label, value=None, step=int(field.step), key=key, persist_state="session")
        case "boolean":
            return st.selectbox(
                label, [True, False], None, _YES_NO.__getitem__, key=key, persist_state="session"
            )
        case "text":
            return st.text_input(label, key=key, persist_state="session") or None


def _key(model: LoadedModel, column: Column) -> str:
    return f"predict.{model.name}.{column.kind}.{column.name}"


def _filled(model: LoadedModel, turn: int) -> dict[str, Value]:
    """What the widgets hold when they show an example."""
    if not model.examples:
        return {}
    example = model.examples[turn % len(model.examples)]
    return {_key(model, column): example[column.name] for column in model.columns}


def _next_example(model: LoadedModel) -> None:
    turn = f"predict.{model.name}.turn"
    st.session_state[turn] = st.session_state.get(turn, 0) + 1
    st.session_state[f"predict.{model.name}.asked"] = None
    st.session_state.update(_filled(model, st.session_state[turn]))
