"""The entry file: `streamlit run streamlit_app/app.py`."""

import sys
from pathlib import Path

import streamlit as st

# `streamlit run` puts this folder on the path, not the one that holds the package.
if "streamlit_app" not in sys.modules:
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from streamlit_app import cached
from streamlit_app.components import follow, header, notices
from streamlit_app.registry import RegistryAwayError

HERE = Path(__file__).parent

st.set_page_config(page_title="mlstack", page_icon=str(HERE / "icon.svg"), layout="wide")
st.html(HERE / "style.css")
page = st.navigation(
    [st.Page("app_pages/predict.py", title="Predict", icon=":material/online_prediction:", default=True)],
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
    if catalogue.champions:
        header.pick_model(catalogue)
        page.run()
    else:
        notices.nothing_promoted(catalogue)
    follow.changes(catalogue)
