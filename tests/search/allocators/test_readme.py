"""The README's snippet runs."""

import re
from pathlib import Path

import search.allocators


def test_the_snippet_runs():
    text = (Path(search.allocators.__file__).parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    study = names["study"]
    assert len(study.trials) == 6
    assert study.trials[0].params == {"conv1": 2, "conv2": 2}
    assert study.best_value < 0.2
