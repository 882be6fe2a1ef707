import pytest
import torch

from spaces.errors import ConfigError
from spaces.recovery.training.accelerator import device_of


@pytest.mark.parametrize(("found", "wanted"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_what_there_is(monkeypatch, found, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert device_of("auto").type == wanted
    assert device_of("cpu").type == "cpu"


def test_what_is_not_there_is_told_with_what_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"accelerator=cuda.*only the CPU.*accelerator=auto"):
        device_of("cuda")


def test_an_unknown_one_is_told():
    with pytest.raises(ConfigError, match=r"'gpu'.*Known: auto, cpu, cuda"):
        device_of("gpu")
