"""A newcomer has the report's page alone, or a terminal of 80 columns and 24 lines alone, and answers what to ship.

Needs Chromium and playwright for the page, and tmux for the terminal.
"""

import re
import shlex
import shutil
import subprocess
import time
import uuid

import pytest

from tests.search import newcomer

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TMUX = shutil.which("tmux")
_LONGEST_S = 400


# -- the page ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(first_study):
    """The report of the study, opened without a network."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_context(offline=True, viewport={"width": 1400, "height": 900}).new_page()
        tab.goto((first_study / "outputs" / newcomer.NAME / "report.html").as_uri())
        yield tab
        browser.close()


def card_of(page, device):
    return page.locator("article", has=page.locator("h3", has_text=re.compile(rf"^{device}:")))


def figures(card, name):
    """Returns the texts of the pick's cell in the card's row of a figure: the value, and its interval's ends."""
    rows = card.get_by_role("table").first.locator("tbody tr")
    (row,) = [row for row in rows.all() if re.match(name, row.inner_text())]
    text = row.locator("td strong, th strong").first.inner_text()
    return re.findall(r"[\d.]+", text), text


def test_the_page_says_what_to_ship_in_its_first_lines(page, first_study):
    head = page.locator("header, main").first.inner_text()
    newcomer.check_sentences(" ".join(head.split()), newcomer.answers(first_study))


def test_a_card_has_the_file_its_figures_and_the_reason(page, first_study):
    for answer in newcomer.answers(first_study):
        card = card_of(page, answer.device)
        link = card.locator("a.download")
        target = first_study / "outputs" / newcomer.NAME / link.get_attribute("href")
        assert target.resolve() == answer.file.resolve()
        for row, name in ((r"top1\s+test split", "top1"), (r"latency\s", "ms")):
            numbers, text = figures(card, row)
            assert len(numbers) == 3, text
            for number, end in zip(numbers, ("", "_low", "_high"), strict=True):
                assert newcomer.is_rounded(number, answer.values[name + end]), (row, text)
        assert newcomer.is_size(" ".join(figures(card, r"file size\s")[1].split()), answer.file_bytes)
        assert re.search(r"Why: \w+.* among the models that meet every constraint", card.inner_text())


def test_the_code_of_a_card_runs_the_model(page, first_study):
    for answer in newcomer.answers(first_study):
        card = card_of(page, answer.device)
        card.get_by_text("Run it in Python").click()
        code = card.locator("pre").first.inner_text()
        printed = newcomer.runs(f"{code}\nprint(output.shape)", first_study / "outputs" / newcomer.NAME)
        assert printed.strip() == "(1, 10)"


# -- the terminal --------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of 80 columns and 24 lines."""

    def __init__(self, folder):
        self._server, self._folder = f"paredown-{uuid.uuid4().hex}", folder
        self._tmux("new-session", "-d", "-x", "80", "-y", "24", "-c", str(folder), "sh")
        self._tmux("set-option", "-g", "history-limit", "5000")

    def _tmux(self, *arguments):
        command = [TMUX, "-f", "/dev/null", "-L", self._server, *arguments]
        return subprocess.run(
            command, env=newcomer.ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout

    def screen(self, *options):
        return self._tmux("capture-pane", "-p", *options)

    def run(self, command):
        """Runs a command; returns all that it left on the screen, lines as they were printed, and the screens on the way."""
        done, seen, deadline = f"status{uuid.uuid4().hex[:6]}", [], time.monotonic() + _LONGEST_S
        self._tmux("send-keys", f"clear; {command}; echo {done[:6]}''{done[6:]} $?", "Enter")
        while f"{done} " not in (shown := self.screen("-J", "-S", "-5000")):
            assert time.monotonic() < deadline, shown
            seen.append(self.screen())
            time.sleep(0.3)
        assert f"{done} 0" in shown
        return shown.rpartition("echo")[2].partition(done)[0], seen

    def close(self):
        self._tmux("kill-server")


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    """A terminal, the folder it is in, what the study printed there, and its screens on the way."""
    if TMUX is None:
        pytest.skip("no tmux on the PATH")
    folder = tmp_path_factory.mktemp("terminal")
    opened = Terminal(folder)
    try:
        yield opened, folder, *opened.run(shlex.join(newcomer.COMMAND))
    finally:
        opened.close()


def test_nothing_is_cropped(terminal):
    _, _, printed, screens = terminal
    lines = printed.splitlines()
    assert not [line for line in (*lines, *"\n".join(screens).splitlines()) if "…" in line]
    table = printed[printed.index("baseline") : printed.index(" test top1 ")]
    latencies = re.findall(r"[\d.]+ ms", table)
    assert len(latencies) >= 2 * len(newcomer.DEVICES)
    (address,) = [line for line in lines if "http://" in line]
    assert address.endswith("-front")
    progress = [line for line in "\n".join(screens).splitlines() if re.search(r" \d/4 ", line)]
    assert progress
    assert all(re.search(r"left [\d:-]+\s*$", line) for line in progress)


def test_the_terminal_answers(terminal):
    _, folder, printed, _ = terminal
    expected = newcomer.answers(folder)
    newcomer.check_sentences(" ".join(printed.split()), expected)
    words = " ".join(printed.split())
    for answer in expected:
        (file,) = re.findall(rf"File for [\w ,]*\b{answer.device}\b[\w ,]*: (\S+)", words)
        assert (folder / file).resolve() == answer.file.resolve()
        why = rf"(?:Why, on [\w ,]*\b{answer.device}\b[\w ,]*: |to {answer.device}: .*?It is ).* among the models that meet every constraint"
        assert re.search(why, words)
    load = re.search(r"Load: (.*)\n", printed)[1]
    assert newcomer.runs(f"print({load}.get_inputs()[0].name)", folder, prelude="import onnxruntime").strip()


def test_the_results_of_a_folder_answer(terminal):
    opened, folder, *_ = terminal
    command = shlex.join([newcomer.sys.executable, "-m", "search.sweep", "outputs"])
    printed, _ = opened.run(command)
    assert "…" not in printed
    words = " ".join(printed.split())
    for answer in newcomer.answers(folder):
        file = re.search(rf"file for {answer.device}: (\S+)", words)[1]
        assert (folder / file).resolve() == answer.file.resolve()
        told = re.findall(r"[\d.]+", words[words.index(f" {answer.device} ") :])
        for name in ("top1", "top1_low", "top1_high", "ms", "ms_low", "ms_high"):
            assert any(
                newcomer.is_rounded(number, answer.values[name]) for number in told if number != "."
            ), name
