"""The examples of the README for the common case run as they are written."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search.cli.app import run_command
from search.cli.verbs.dispatch import VERBS

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if re.match(rf"paredown ({'|'.join(VERBS)})\b", line)
]
SHORT = [
    "study.n_trials=1",
    "sampler=random",
    "executor=serial",
    "tracker=none",
    "study.report=false",
    "cache_dir=cache",
]


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The network and the images that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )
    from search.requests.live import write_live

    inputs, labels = torch.randn(60, 3, 8, 8), torch.arange(60) % 2
    model, _ = write_live(module, [(inputs, labels)], tmp_path)
    model.rename("net.onnx")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(
                tmp_path / "images" / name / f"{i}.png"
            )
    return module, [(inputs, labels)]


def test_every_verb_is_in_the_readme():
    assert [words[0] for words in COMMANDS] == ["quantize", "init", "knobs"]
    assert "`paredown methods pruning`" in README


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_command_of_the_readme_runs(net, words, capsys):
    more = {"quantize": SHORT, "init": ["net.onnx", "--data", "images"]}.get(words[0], [])
    assert run_command([*words, *more]) == 0
    assert capsys.readouterr().out


def test_the_methods_command_of_the_readme_runs(capsys):
    assert run_command(["methods", "pruning"]) == 0
    assert "prune.criterion=taylor" in capsys.readouterr().out


def test_the_python_example_of_the_readme_runs(net, monkeypatch, capsys):
    import search

    module, loader = net
    real = search.quantize
    monkeypatch.setattr(
        search, "quantize", lambda *given, **more: real(*given, **more, overrides=SHORT), raising=False
    )
    (example,) = re.findall(r"```python\n(import search\n.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {"module": module, "loader": loader})
    assert capsys.readouterr().out.splitlines()[-1].endswith(".onnx")
