"""A reviewer opens MLflow's own pages in a browser, and reads there which model to ship."""

import shutil

import pytest

from search.report.testing import fake_results
from search.tracking.mlflow_tracker import MlflowTracker
from search.tracking.testing import play
from tests.search.tracking.serving import CHROMIUM, serving
from tests.search.tracking.test_mlflow_tracker import write_baseline, write_models

pytest.importorskip("playwright.sync_api", reason="playwright (a browser's remote control) is missing")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]


@pytest.fixture(scope="module")
def study(migrated, tmp_path_factory):
    """A study and its tracker, logged to a database of its own."""
    folder = tmp_path_factory.mktemp("ui")
    shutil.copy(migrated, folder / "mlflow.db")
    results = fake_results(folder / "out", 14)
    write_models(results)
    write_baseline(results)
    tracker = MlflowTracker(f"sqlite:///{folder / 'mlflow.db'}")
    play(tracker, results)
    tracker.finish(results)
    tracker.close()
    return results, tracker, folder


@pytest.fixture(scope="module")
def server(study):
    with serving(study[2]) as address:
        yield address


@pytest.fixture
def page(browser):
    # MLflow draws only the columns and charts within the window
    opened = browser.new_page(viewport={"width": 2600, "height": 2600})
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


def link(study, server, more=""):
    """What the terminal prints, on this server."""
    return f"{server}/{study[1].address().partition('5000/')[2]}{more}"


def test_the_printed_link_shows_the_front_with_its_figures(study, server, page):
    results = study[0]
    page.goto(link(study, server))
    for number in results.front:
        page.get_by_role("link", name=f"trial {number} · complete").wait_for()
    page.get_by_role("link", name="float model").wait_for()
    heads = set(page.locator(".ag-header-cell").all_inner_texts())
    for name in ("metric.top1", "cost.host.latency_ms", "cost.stm32h743.latency_ms", "quantize.weight_bits"):
        assert any(name in head for head in heads), (name, heads)
    names = [text for text in page.locator(".ag-row a").all_inner_texts() if text.startswith("trial")]
    assert set(names) == {f"trial {n} · complete" for n in results.front}


def test_the_charts_are_of_the_trials_metrics(study, server, page):
    page.goto(link(study, server, "&compareRunsMode=CHART"))
    page.get_by_text("cost.host.latency_ms vs. metric.top1").wait_for()
    page.get_by_text("Parallel Coordinates").wait_for()
    assert page.get_by_text("baseline.").count() == 0


def test_the_description_says_what_to_ship_and_shows_the_front(study, server, page):
    results, tracker, _ = study
    experiment, run = tracker._record.place
    page.goto(f"{server}/#/experiments/{experiment}/runs/{run}")
    for pick in results.picks:
        page.get_by_text(f"Ship trial {pick.number} to {pick.device}").wait_for()
    page.get_by_text("Show more").first.click()
    page.get_by_text("Pareto front").wait_for()
    page.wait_for_function(
        "[...document.images].some(i => i.src.includes('front.svg') && i.naturalWidth > 100)"
    )
    assert page.get_by_text("models:/digits@stm32h743").count() == 1
    assert page.locator("td", has_text="measured").count() > 0


def test_the_registered_model_has_an_alias_per_device(study, server, page):
    page.goto(f"{server}/#/models/digits")
    for alias in ("float", *(p.device for p in study[0].picks)):
        page.get_by_text(f"@ {alias}", exact=True).first.wait_for()
    page.get_by_text("Version 1", exact=True).wait_for()


def test_the_models_are_listed_with_their_trials(study, server, page):
    page.goto(f"{server}/#/experiments/{study[1]._record.place[0]}/models?workflowType=machine_learning")
    for number in study[0].front:
        page.get_by_text(f"trial_{number}", exact=True).first.wait_for()
    page.get_by_text("baseline", exact=True).first.wait_for()
