"""The entry file: `streamlit run streamlit_app/app.py`."""

import os
import sys
from pathlib import Path

import streamlit as st

# Before scikit-learn is loaded: many sessions share few cores, and one row gains nothing by more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `streamlit run` puts this folder on the path, not the one that holds the package.
if "streamlit_app" not in sys.modules:
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from serving.errors import RegistryAwayError
from streamlit_app import cached
from streamlit_app.components import follow, header, notices

HERE = Path(__file__).parent

st.set_page_config(page_title="mlstack", page_icon=str(HERE / "icon.svg"), layout="wide")
st.logo(HERE / "logo.svg", size="large")
st.html(HERE / "style.css")
compare = st.Page("app_pages/compare.py", title="Compare", icon=":material/leaderboard:")
page = st.navigation(
    [
        st.Page("app_pages/predict.py", title="Predict", icon=":material/online_prediction:", default=True),
        st.Page("app_pages/batch.py", title="Batch", icon=":material/table_rows:"),
        compare,
        st.Page("app_pages/card.py", title="Model card", icon=":material/description:", url_path="card"),
        st.Page("app_pages/activity.py", title="Activity", icon=":material/monitoring:"),
    ],
    position="top",
)

header.show(page.title)
try:
    catalogue = cached.catalogue()
except RegistryAwayError as error:
    notices.away(error)
    follow.changes(None)
else:
    if not catalogue.live:
        notices.last_known()
    # Only a champion answers; versions can be compared without one.
    names = [model.name for model in catalogue.models if model.champion or page is compare]
    if names:
        header.pick_model(catalogue, names)
        page.run()
    else:
        notices.nothing_promoted(catalogue)
    follow.changes(catalogue)
