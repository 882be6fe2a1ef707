"""The pages in a browser: loaded without a network, on a wide and a narrow screen, light and dark; checked by axe-core.

Needs Chromium, `pip install playwright` and axe-core: `npm i axe-core` in some folder, and the environment variable AXE_CORE with
the path of its axe.min.js.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from evaluators.testing import tiny_model
from search.cli.fleet import fleet
from search.cli.fleet_tables import html_page
from search.cli.sweep import read_studies
from search.report.report import write_report
from search.report.testing import fake_results, hostile_results

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AXE = Path(os.environ.get("AXE_CORE", "axe.min.js"))
BOARD = {
    "runtime": "r",
    "macs_per_s": {"float32": 1e6, "int8": 4e6},
    "ram_bytes": "8 KiB",
    "flash_bytes": "1 MiB",
}


def with_models(results):
    """Gives each pick a file, so that the page has its layers and how it is deployed."""
    for pick in results.picks:
        path = results.model_path(pick.number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tiny_model().onnx_bytes)
    return results


def usual(folder):
    results = fake_results(folder, 24)
    devices = dict.fromkeys(("host", "stm32h743"), BOARD)
    return with_models(
        results.__class__(**{**vars(results), "config": {**results.config, "device": devices}})
    )


STUDIES = {
    "usual": usual,
    "no trials": lambda folder: fake_results(folder, 0),
    "none feasible": lambda folder: fake_results(folder, 24, top1_min=101.0),
    "one objective": lambda folder: fake_results(folder, 24, ()),
    "many devices": lambda folder: with_models(fake_results(folder, 30, [f"board{i}" for i in range(6)])),
    "hostile": hostile_results,
}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    if not AXE.is_file():
        pytest.skip("no axe-core: npm i axe-core, and AXE_CORE=.../axe.min.js")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(params=[("light", 1400), ("dark", 1400), ("light", 420), ("dark", 420)], ids=str)
def opened(request, browser):
    """Opens a page as readers do, and yields it; afterwards, nothing may have been loaded, and no error told."""
    scheme, width = request.param
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True, offline=True
    )
    tab, errors, requests = context.new_page(), [], []
    tab.on(
        "console",
        lambda message: errors.append(message.text) if message.type in ("error", "warning") else None,
    )
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda asked: requests.append(asked.url))

    def visit(path):
        tab.goto(path.as_uri(), wait_until="load")
        return tab

    yield visit
    assert errors == []
    assert len(requests) == 1
    context.close()


def violations(tab):
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found]


def overflow(tab):
    """Pixels by which the page is wider than the screen."""
    return tab.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("name", STUDIES)
def test_a_report_is_accessible_and_fits(tmp_path, opened, name):
    write_report(STUDIES[name](tmp_path), tmp_path / "report.html")
    tab = opened(tmp_path / "report.html")
    assert overflow(tab) <= 0
    assert violations(tab) == []
    assert overflow(tab) <= 0  # with everything unfolded


def test_a_page_over_a_sweep_is_accessible_and_fits(tmp_path, opened):
    for i, device in enumerate(("board", "chip", "chip")):
        folder = tmp_path / f"net-bits={i}"
        folder.mkdir()
        entry = {
            "metrics": {"top1": 90.0 + i, "file_bytes": 1024 * (1 + i)},
            "costs": {device: {"latency_ms": 1.0 + i}},
        }
        summary = {
            "study": folder.name,
            "sampler": "tpe",
            "n_trials": 4,
            "wall_s": 1.0,
            "baseline": entry,
            "best": entry,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    page = tmp_path / "sweep.html"
    page.write_text(html_page(fleet(read_studies([tmp_path]).shipped), "sweep", tmp_path))
    tab = opened(page)
    assert overflow(tab) <= 0
    assert violations(tab) == []


def test_points_can_be_reached_and_followed_with_the_keyboard(tmp_path, opened):
    results = usual(tmp_path)
    write_report(results, tmp_path / "report.html")
    tab = opened(tmp_path / "report.html")
    chart = tab.locator("#front svg.plot:not(.swatch)").first
    assert chart.locator("a.pt[tabindex='0']").count() == 1
    chart.locator("a.pt[tabindex='0']").focus()
    first = tab.evaluate("document.activeElement.getAttribute('href')")
    tab.keyboard.press("ArrowRight")
    second = tab.evaluate("document.activeElement.getAttribute('href')")
    assert first != second
    assert tab.locator("#tip").is_visible()
    assert f"trial {second.removeprefix('#trial-')}," in tab.locator("#tip").inner_text()
    knobs = results.trial(int(second.removeprefix("#trial-"))).candidate
    assert f"scheme: {knobs['quantize.scheme']}" in tab.locator("#tip").inner_text()
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.getElementById('all-trials').open")
    assert tab.locator(f"{second}.shown").is_visible()


def test_tables_are_sorted_by_a_click_or_a_key(tmp_path, opened):
    write_report(usual(tmp_path), tmp_path / "report.html")
    tab = opened(tmp_path / "report.html")
    tab.evaluate("document.getElementById('all-trials').open = true")
    head = tab.locator("#all-trials th", has_text="top1").first
    for expected in ("ascending", "descending"):
        head.locator("button").focus()
        tab.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == expected
        values = tab.evaluate(
            "i => Array.from(document.querySelectorAll('#all-trials tbody tr')).map(row => row.cells[i].querySelector('[data-sort]'))"
            ".filter(cell => cell).map(cell => parseFloat(cell.dataset.sort))",
            head.evaluate("head => head.cellIndex"),
        )
        assert values == sorted(values, reverse=expected == "descending")


def test_it_can_be_printed(tmp_path, opened):
    write_report(usual(tmp_path), tmp_path / "report.html")
    tab = opened(tmp_path / "report.html")
    assert tab.pdf(format="A4").startswith(b"%PDF")
    tab.emulate_media(media="print")
    assert not tab.locator("nav").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
