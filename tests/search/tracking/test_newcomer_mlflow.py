"""A newcomer has MLflow's pages alone, from the list of experiments on, and answers what to ship."""

import re

import pytest

from tests.search import newcomer
from tests.search.tracking.serving import CHROMIUM, serving

pytest.importorskip("playwright.sync_api", reason="playwright (a browser's remote control) is missing")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def server(first_study):
    with serving(first_study) as address:
        yield address


@pytest.fixture
def page(browser):
    """A browser that has never seen MLflow."""
    opened = browser.new_page(
        viewport={"width": 2600, "height": 1600}
    )  # MLflow draws only the columns within the window
    opened.set_default_timeout(60_000)
    hint = opened.get_by_role("button", name="Got it")  # MLflow's own, over its first page
    opened.add_locator_handler(hint, lambda: hint.click())
    yield opened
    opened.close()


@pytest.fixture
def study_page(page, server):
    """The study's page, found from MLflow's first one; its description is unfolded."""
    page.goto(f"{server}/#/experiments")
    page.get_by_role("link", name="paredown", exact=True).first.click()
    # "Training runs" where MLflow takes the experiment for one of language models
    page.get_by_role("link", name=re.compile("^(Training runs|Runs)$")).first.click()
    page.get_by_role("link", name=newcomer.NAME, exact=True).first.click()
    page.get_by_text("Show more").first.click()
    page.get_by_text("Pareto front").wait_for()
    return page


def test_the_description_answers(study_page, first_study):
    text = study_page.locator("main, body").last.inner_text()
    expected = newcomer.answers(first_study)
    newcomer.check_sentences(" ".join(text.split()), expected)
    for answer in expected:
        assert re.search(
            rf"^{answer.device}: \w+.* among the models that meet every constraint", text, re.MULTILINE
        )
        load = re.search(rf"mlflow\.onnx\.load_model\(.*@{answer.device}\"\)", text)[0]
        prelude = "import mlflow, onnx\nmlflow.set_tracking_uri('sqlite:///mlflow.db')"
        code = f"assert {load} == onnx.load({str(answer.file)!r})"
        newcomer.runs(code, first_study, prelude=prelude)


def test_the_front_is_one_click_away_and_names_the_picks(study_page, first_study):
    with study_page.expect_popup() as opened:
        study_page.get_by_role("link", name="The front", exact=True).click()
    front = opened.value
    front.set_default_timeout(60_000)
    front.locator(".ag-header-cell", has_text="chosen_for").first.wait_for()
    for answer in newcomer.answers(first_study):
        name = "float model" if answer.number == "baseline" else f"trial {answer.number} · complete"
        front.get_by_role("link", name=name).first.wait_for()
        front.locator(".ag-cell", has_text=answer.device).first.wait_for()
