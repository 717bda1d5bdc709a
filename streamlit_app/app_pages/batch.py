"""Predictions for a whole file: upload, report, progress, download."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import streamlit as st

from serving.errors import PredictionError
from streamlit_app import activity, cached, tables
from streamlit_app.components import answer, grid, header, notices
from streamlit_app.models import AppModel
from streamlit_app.tables import Matched, Problem, TableError, Upload

_MEGABYTES = 50
_CHUNK = 5_000
_PREVIEW = 100
_CLASSES = 10  # a column for each; of more classes only the predicted one's


@dataclass(frozen=True)
class Scored:
    """A table with its answers. Kept as Parquet: a session's memory is everybody's."""

    file: str
    rows: int
    skipped: int
    added: tuple[str, ...]
    preview: pd.DataFrame
    content: bytes

    def csv(self) -> bytes:
        """Return the table as CSV, made when it is asked for."""
        return tables.as_csv(pa.parquet.read_table(pa.BufferReader(self.content)))


def score(model: AppModel, upload: Upload, matched: Matched, name: str) -> Scored:
    """Ask the model in parts, showing its progress.

    Raises:
        PredictionError: The model failed on a part.
    """
    frame, log = matched.frame, cached.activity_log()
    bar = st.progress(0.0, "Waiting for another table to finish…")
    with cached.tables():
        answers = []
        for start in range(0, len(frame), _CHUNK):
            bar.progress(start / len(frame), f"Predicting: {start:,} of {len(frame):,} rows")
            answers.append(activity.ask(log, model, frame.iloc[start : start + _CHUNK]))
        values = np.concatenate([part.values for part in answers])
        added = {"prediction": values}
        if answers[0].probabilities is not None:
            chances = np.concatenate([np.asarray(part.probabilities) for part in answers])
            # Of what is predicted, which need not be the most probable where costs chose the threshold.
            said = values[:, None] == np.asarray(answers[0].classes)
            added["probability"] = chances[said]
            if 2 <= len(answers[0].classes) <= _CLASSES:
                added |= {f"probability_{c}": chances[:, i] for i, c in enumerate(answers[0].classes)}
        table = tables.answered(upload, matched.usable, added)
        names = tuple(table.column_names[-len(added) :])
        shown = [*names, *upload.table.column_names[: 30 - len(names)]]
        preview = table.select(shown).slice(0, _PREVIEW).to_pandas()
        content = tables.as_parquet(table)
    bar.empty()
    return Scored(name, len(frame), table.num_rows - len(frame), names, preview, content)


def report(matched: Matched, model: AppModel, rows: int) -> None:
    """Report which parts of the file are used, and what can't be."""
    found = len(model.columns) - len(matched.missing) - len(matched.absent)
    with st.container(key="report"):
        if matched.missing:
            st.error(
                f"{len(matched.missing)} of the {len(model.columns)} columns that the model needs are not in "
                f"the file: {_names(matched.missing)}.",
                icon=":material/view_column:",
            )
            if matched.extra:
                st.markdown(f"The file has these, which the model doesn't know: {_names(matched.extra)}.")
            return
        st.markdown(f":green[:material/check:] {found} of {len(model.columns)} columns found, {rows:,} rows.")
        if matched.renamed:
            pairs = ", ".join(f"`{own}` as `{name}`" for own, name in list(matched.renamed.items())[:8])
            st.markdown(f"Read {pairs}.")
        if matched.absent:
            st.markdown(
                f"Optional columns that are not in the file are taken as empty: {_names(matched.absent)}."
            )
        if matched.extra:
            st.markdown(f"Kept in the result, but not used by the model: {_names(matched.extra)}.")
        lost = int((~matched.usable).sum())
        if matched.problems:
            st.warning(
                f"{lost:,} of {rows:,} rows can't be read and get no prediction.",
                icon=":material/rule:",
            )
            _listed(matched.problems, "Values that don't fit, and their rows", "problems")
        if matched.remarks:
            with st.expander(
                f"{len(matched.remarks)} columns have values not seen in training", icon=":material/info:"
            ):
                st.caption("These rows get a prediction, but the model never saw such values.")
                _listed(matched.remarks, "Values not seen in training", "remarks")


def result(scored: Scored) -> None:
    """Show the first rows with their answers, and offer all of them for download."""
    st.subheader(f"{scored.rows:,} predictions", anchor=False)
    stem = scored.file.rpartition(".")[0] or scored.file
    with st.container(horizontal=True):
        st.download_button(
            "Download CSV",
            scored.csv,
            f"{stem}_predicted.csv",
            "text/csv",
            key="download_csv",
            icon=":material/download:",
            type="primary",
            on_click="ignore",
        )
        st.download_button(
            "Download Parquet",
            scored.content,
            f"{stem}_predicted.parquet",
            "application/vnd.apache.parquet",
            key="download_parquet",
            icon=":material/download:",
            on_click="ignore",
        )
    chances = [name for name in scored.added if name.startswith("probability")]
    st.dataframe(
        scored.preview,
        hide_index=True,
        column_config={
            name: st.column_config.ProgressColumn(name, min_value=0.0, max_value=1.0, format="percent")
            for name in chances
        },
        alt="The first rows with their predictions",
        key="preview",
    )
    if scored.rows + scored.skipped > _PREVIEW:
        st.caption(f"The first {_PREVIEW} rows; the downloads have all of them.")


def template(model: AppModel) -> None:
    """Offer a file with the model's columns, to be filled in."""
    rows = pd.DataFrame(list(model.examples) or None, columns=[column.name for column in model.columns])
    st.download_button(
        "Download an example file",
        rows.to_csv(index=False).encode(),
        f"{model.name}_example.csv",
        "text/csv",
        key="template",
        icon=":material/description:",
        type="tertiary",
        on_click="ignore",
    )


def draw(model: AppModel) -> None:
    """Draw the upload and its result."""
    answer.version(model)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown("One row per prediction; columns are found by name, in any order.", width="content")
        template(model)
    file = st.file_uploader(
        "CSV, Excel, JSON lines or Parquet file",
        ["csv", "tsv", "txt", "xlsx", "jsonl", "ndjson", "parquet", "pq", "gz", "zip"],
        max_upload_size=_MEGABYTES,
        key="table",
    )
    key = f"batch.{model.name}.scored"
    if file is None:
        st.session_state.pop(key, None)
        return
    asked = (file.file_id, model.version)
    held: tuple[tuple[str, str], Scored | None] | None = st.session_state.get(key)
    if held is None or held[0] != asked:
        held = (asked, None)
    try:
        with cached.tables():
            upload = tables.read(file.name, file.getvalue(), model.columns)
            matched = tables.match(upload, model)
    except TableError as error:
        notices.no_table(error)
        return
    for note in (*upload.notes, *matched.notes):
        st.info(f"{file.name}: {note}.", icon=":material/translate:")
    report(matched, model, upload.table.num_rows)
    if matched.missing or not len(matched.frame):
        return
    scored = held[1]
    if scored is None:
        try:
            scored = score(model, upload, matched, file.name)
        except PredictionError as error:
            notices.no_answer(error)
            return
        st.session_state[key] = (asked, scored)
    result(scored)


def _names(names: tuple[str, ...], most: int = 8) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def _listed(problems: tuple[Problem, ...], sentence: str, key: str) -> None:
    rows = [
        {
            "column": problem.column,
            "rows": f"{problem.count:,}",
            "what": problem.text,
            "first in row": ", ".join(map(str, problem.rows)),
        }
        for problem in problems
    ]
    grid.show(pd.DataFrame(rows), sentence, key)


header.with_model(draw)
