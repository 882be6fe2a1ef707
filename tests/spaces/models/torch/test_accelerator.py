import pytest
import torch

from spaces.errors import ConfigError
from spaces.models.torch.accelerator import device_of


@pytest.mark.parametrize(("found", "wanted"), [(False, "cpu"), (True, "cuda")])
def test_auto_chooses_an_available_device(monkeypatch, found, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert device_of("auto").type == wanted
    assert device_of("cpu").type == "cpu"


def test_an_unavailable_accelerator_raises_and_names_the_available_ones(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"accelerator=cuda.*only the CPU.*accelerator=auto"):
        device_of("cuda")


def test_an_unknown_accelerator_raises():
    with pytest.raises(ConfigError, match=r"'gpu'.*Known: auto, cpu, cuda"):
        device_of("gpu")
