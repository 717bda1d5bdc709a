"""What a visit draws: the header, the chosen page, and a notice where there is nothing to show."""

from pathlib import Path

import streamlit as st

from serving.errors import RegistryAwayError
from streamlit_app import cached, metrics
from streamlit_app.components import follow, header, notices

HERE = Path(__file__).parent

st.set_page_config(page_title="mlstack", page_icon=str(HERE / "icon.svg"), layout="wide")
st.logo(HERE / "logo.svg", size="large")
st.html(HERE / "style.css")
compare = st.Page("app_pages/compare.py", title="Compare", icon=":material/leaderboard:")
health = st.Page("app_pages/health.py", title="Health", icon=":material/monitor_heart:")
page = st.navigation(
    [
        st.Page("app_pages/predict.py", title="Predict", icon=":material/online_prediction:", default=True),
        st.Page("app_pages/batch.py", title="Batch", icon=":material/table_rows:"),
        compare,
        st.Page("app_pages/card.py", title="Model card", icon=":material/description:", url_path="card"),
        st.Page("app_pages/activity.py", title="Activity", icon=":material/monitoring:"),
        health,
    ],
    position="top",
)


def with_models() -> None:
    """Draw a page about the registered models, or why there is nothing to show."""
    try:
        catalogue = cached.catalogue()
    except RegistryAwayError as error:
        notices.away(error)
        follow.changes(cached.AWAY)
        return
    if not catalogue.live:
        notices.last_known()
    # Only a champion answers; versions can be compared without one.
    names = [model.name for model in catalogue.models if model.champion or page is compare]
    if names:
        header.pick_model(catalogue, names)
        page.run()
    else:
        notices.nothing_promoted(catalogue)
    follow.changes(catalogue.state)


header.show(page.title)
with metrics.drawing(page.title):
    # What is wrong matters most when MLflow is away, or before there is a model.
    if page is health:
        page.run()
    else:
        with_models()
