"""App and MLflow in a real browser, as a person sees them. Needs a running mlstack with trained models."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from mlflow import MlflowClient
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

pytestmark = [
    pytest.mark.sandbox,
    # Chromium drops its connections when an address of the machine changes, as each container's start is.
    pytest.mark.flaky(reruns=2, condition="'ERR_NETWORK_CHANGED' in str(error)"),
]

STREAMLIT = os.environ.get("MLSTACK_STREAMLIT_URL", "http://127.0.0.1:8501")
MLFLOW = os.environ.get("MLSTACK_MLFLOW_URL", "http://127.0.0.1:5000")
SCREENSHOTS = Path(__file__).parents[2] / ".cache" / "screenshots"
CHROMIUM_ARGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROBLEM = "breast_cancer"
FIRST_PAINT_MS = 30_000  # the first visitor after a start waits for imports
FOLLOW_MS = 10_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        pytest.fail("no Chromium on the PATH; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, width: int = 1280, scheme: Literal["dark", "light"] = "light", forgiven: str = "nothing"
) -> Iterator[Page]:
    """Open a page of its own session, which must not have complained by its end, but for what is forgiven."""
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(f"{message.text} ({message.location.get('url')})")

    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            yield page
        finally:  # where something else failed before, this may be why
            complaints = [complaint for complaint in complaints if forgiven not in complaint]
            assert not complaints, "\n".join(complaints)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page as most people see it."""
    with opened(browser) as page:
        yield page


@pytest.fixture
def client() -> MlflowClient:
    return MlflowClient(MLFLOW)


@pytest.fixture
def champion(client: MlflowClient) -> Iterator[str]:
    """The version that is champion, put back afterwards."""
    version = str(client.get_model_version_by_alias(PROBLEM, "champion").version)
    yield version
    client.set_registered_model_alias(PROBLEM, "champion", version)


def open_app(page: Page, model: str = PROBLEM) -> None:
    page.goto(f"{STREAMLIT}/?model={model}")
    expect(page.get_by_test_id("stFormSubmitButton").first).to_be_visible(timeout=FIRST_PAINT_MS)


def exact(page: Page) -> None:
    """Lets numbers be typed instead of chosen by sliders."""
    page.get_by_text("Type exact values").click()
    expect(page.get_by_role("spinbutton", name="Mean radius")).to_be_editable()


def go_to(page: Page, title: str) -> None:
    """Another page of the app, by its link: the model that was chosen stays chosen."""
    page.get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=FIRST_PAINT_MS)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def scored(page: Page, table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A table with the answers that the Batch page added to it."""
    table.to_csv(folder / "rows.csv", index=False)
    page.locator("input[type=file]").set_input_files(folder / "rows.csv")
    button = page.get_by_role("button", name="Download CSV")
    expect(button).to_be_visible(timeout=FIRST_PAINT_MS)
    with page.expect_download() as download:
        button.click()
    return pd.read_csv(download.value.path())


def answered_by(page: Page) -> str:
    found = re.search(r"\bv(\d+)\b", page.locator(".st-key-version").inner_text())
    assert found
    return found[1]


def predict(page: Page) -> str:
    page.get_by_test_id("stBaseButton-primaryFormSubmit").click()
    value = page.locator(".st-key-prediction").get_by_test_id("stMetricValue")
    expect(value).to_be_visible()
    return value.inner_text()


def shoot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(600)  # fades and the chart's first frame
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_predict(page: Page, champion: str) -> None:
    page.goto(STREAMLIT)
    expect(page.get_by_test_id("stFormSubmitButton").first).to_be_visible(timeout=FIRST_PAINT_MS)
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="Breast cancer").click()
    expect(page).to_have_url(re.compile(rf"model={PROBLEM}$"))
    expect(page.get_by_role("slider", name="Mean radius")).to_be_visible()

    answer = predict(page)
    assert answer in ("benign", "malignant")
    assert re.search(r"Probability \d+\.\d%", page.locator(".st-key-probability").inner_text())
    expect(page.locator(".st-key-probabilities .bar").first).to_be_visible()
    assert answered_by(page) == champion
    shoot(page, "predict")

    exact(page)
    page.get_by_role("tab", name="Worst").click()
    # Far towards the other class: the app must answer for what is in the form now.
    factor = 3 if answer == "benign" else 0.3
    fields = page.get_by_label(re.compile("^Worst ")).and_(page.locator("input"))
    expect(fields).to_have_count(10)
    for field in fields.all():
        field.fill(f"{float(field.input_value()) * factor:.4f}")
    page.get_by_test_id("stBaseButton-primaryFormSubmit").click()
    expect(page.locator(".st-key-prediction")).not_to_contain_text(answer)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_the_curl_line_gets_the_same_answer(page: Page) -> None:
    open_app(page)
    answer = predict(page)
    page.get_by_text("For programs: JSON and curl").click()
    line = page.get_by_test_id("stCode").first.inner_text()
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout)["predictions"] == [answer]


def test_an_empty_field_is_asked_for(page: Page) -> None:
    open_app(page)
    exact(page)
    page.get_by_role("spinbutton", name="Mean radius").fill("")
    page.get_by_test_id("stBaseButton-primaryFormSubmit").click()
    expect(page.locator(".st-key-missing")).to_contain_text("Mean radius (under Mean)")


def test_a_moved_alias_is_followed_without_a_click(page: Page, champion: str, client: MlflowClient) -> None:
    copy = str(client.copy_model_version(f"models:/{PROBLEM}/{champion}", PROBLEM).version)
    try:
        open_app(page)
        exact(page)
        predict(page)
        page.get_by_role("spinbutton", name="Mean texture").fill("21.5")  # typed, not yet sent
        for version in (copy, champion):
            client.set_registered_model_alias(PROBLEM, "champion", version)
            started = time.monotonic()
            expect(page.get_by_text(f"Now answering: version {version}")).to_be_visible(timeout=FOLLOW_MS)
            print(f"followed to version {version} in {time.monotonic() - started:.1f} s")
            assert answered_by(page) == version
        expect(page.get_by_role("spinbutton", name="Mean texture")).to_have_value("21.5")
        expect(page.locator(".st-key-prediction")).to_be_visible()
    finally:
        client.set_registered_model_alias(PROBLEM, "champion", champion)
        client.delete_model_version(PROBLEM, copy)


def test_a_table_gets_its_answers(page: Page, tmp_path: Path) -> None:
    open_app(page)
    go_to(page, "Batch")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download an example file").click()
    table = pd.read_csv(download.value.path())
    many = pd.concat([table] * 2_000, ignore_index=True).assign(note="mine")
    found = scored(page, many, tmp_path)
    assert len(found) == len(many)
    assert set(found["prediction"]) <= {"benign", "malignant"}
    assert found["probability"].between(0.5, 1).all()
    assert found["note"].eq("mine").all()
    shoot(page, "batch")


def test_a_table_that_does_not_fit_is_told_why(page: Page, tmp_path: Path) -> None:
    open_app(page)
    go_to(page, "Batch")
    (tmp_path / "wide.csv").write_text(",".join(f"c{i}" for i in range(1_000_000)) + "\n1\n")
    (tmp_path / "rows.csv").write_text("mean radius\n1\n")
    for file, says in (("wide.csv", "This file can't be used"), ("rows.csv", "29 of the 30 columns")):
        page.locator("input[type=file]").set_input_files(tmp_path / file)
        expect(page.get_by_text(says)).to_be_visible(timeout=FIRST_PAINT_MS)


def test_compare_card_activity_and_health(page: Page, champion: str) -> None:
    open_app(page)
    predict(page)
    go_to(page, "Compare")
    expect(page.get_by_text("Gate decisions")).to_be_visible(timeout=FIRST_PAINT_MS)
    expect(page.locator(".st-key-scores canvas, .st-key-scores svg").first).to_be_visible()
    shoot(page, "compare")
    go_to(page, "Model card")
    expect(page.get_by_role("heading", name="Performance")).to_be_visible(timeout=FIRST_PAINT_MS)
    expect(page.locator(".st-key-quality").get_by_test_id("stMetricValue").first).to_contain_text("0.9")
    expect(page.get_by_test_id("stImage").first).to_be_visible()
    shoot(page, "card")
    go_to(page, "Activity")
    there = page.locator(".st-key-figures, .st-key-notice-history_toggle_off")
    expect(there.first).to_be_visible(timeout=FIRST_PAINT_MS)
    shoot(page, "activity")
    assert answered_by(page) == champion
    go_to(page, "Health")
    expect(page.locator(".st-key-summary, .st-key-notice-hourglass").first).to_be_visible()
    shoot(page, "health")
    go_to(page, "Predict")
    expect(page.locator(".st-key-prediction")).to_be_visible()


@pytest.mark.parametrize(("name", "width", "scheme"), [("dark", 1280, "dark"), ("phone", 390, "light")])
@pytest.mark.parametrize("path", ["", "batch", "compare", "card", "activity"])
def test_other_screens(
    browser: Browser, path: str, name: str, width: int, scheme: Literal["dark", "light"]
) -> None:
    # Streamlit looks for its server below the page's own path first.
    with opened(browser, width, scheme, forgiven="404 (Not Found)") as page:
        page.goto(f"{STREAMLIT}/{path}?model={PROBLEM}")
        expect(page.get_by_role("combobox", name="Model")).to_be_visible(timeout=FIRST_PAINT_MS)
        if not path:
            predict(page)
        shoot(page, f"{path or 'predict'}-{name}")
        # Charts get their width only after they were drawn.
        fits = f"document.querySelector('[data-testid=stMain]').scrollWidth <= {width}"
        page.wait_for_function(fits, timeout=FOLLOW_MS)
        expect(page.get_by_test_id("stException")).to_have_count(0)


def test_the_run_is_one_click_away(page: Page) -> None:
    open_app(page)
    link = page.locator(".st-key-version").get_by_role("link", name="Run", exact=False).first
    assert re.search(r"/#/experiments/\d+/runs/[0-9a-f]{32}$", link.get_attribute("href") or "")


def test_mlflow_shows_the_experiments(browser: Browser, client: MlflowClient) -> None:
    names = [e.name for e in client.search_experiments() if e.name != "Default"]
    assert names
    with opened(browser, forgiven="404 (Not Found)") as page:
        page.goto(f"{MLFLOW}/#/experiments")
        for name in names[:10]:
            expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=FIRST_PAINT_MS)
        shoot(page, "mlflow-experiments")
