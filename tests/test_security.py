"""The threat model names a test for each attack, and each of them exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github/SECURITY.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)?::(\w+)`")


def test_every_attack_has_a_test_that_exists():
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) >= 15
    for row in rows:
        file = ""
        names = NAMED.findall(row)
        assert names, row
        for path, name in names:
            file = path or file
            assert re.search(rf"^\s*def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_it_is_one_page():
    assert len(TEXT.splitlines()) <= 70
