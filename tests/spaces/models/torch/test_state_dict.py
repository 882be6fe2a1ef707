import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from spaces.errors import InputError
from spaces.models.torch.state_dict import load_state_dict, read_state_dict


class Code:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.fixture
def net():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_usual_file_layouts_are_read(tmp_path, net, wrap, prefix, legacy):
    state = {prefix + name: value for name, value in net.state_dict().items()}
    content = state if wrap is None else {"epoch": 3, wrap: state}
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not legacy)
    found = read_state_dict(tmp_path / "c.pt")
    assert list(found) == list(net.state_dict())
    assert torch.equal(found["0.weight"], net[0].weight)


def test_key_can_be_named(tmp_path, net):
    torch.save({"ema": net.state_dict(), "state_dict": {}}, tmp_path / "c.pt")
    assert "0.bias" in read_state_dict(tmp_path / "c.pt", "ema")
    with pytest.raises(InputError, match=r"no key 'other' \(model.state_dict_key\); it has ema"):
        read_state_dict(tmp_path / "c.pt", "other")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_not_run(tmp_path, net, legacy):
    target = tmp_path / "made"
    for content in (Code(target), {"state_dict": net.state_dict(), "hook": Code(target)}, net):
        torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(
            InputError, match=r"holds code.*it was not run.*torch\.save\(net\.state_dict\(\), path\)"
        ):
            read_state_dict(tmp_path / "c.pt")
    assert not target.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_plain_pickle_is_not_run(tmp_path, protocol):
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Code(tmp_path / "made"), protocol))
    with pytest.raises(InputError, match=r"c\.pt"):
        read_state_dict(tmp_path / "c.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_truncated_files_raise(tmp_path, net, legacy, share):
    path = tmp_path / "c.pt"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"c\.pt is damaged, or no"):
        read_state_dict(path)


def test_files_of_other_formats_raise(tmp_path):
    (tmp_path / "table.pt").write_text("a,b\n1,2\n")
    (tmp_path / "text.pt").write_text("hello, this is not a checkpoint")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a", "b")
    for name in ("table.pt", "text.pt", "zip.pt"):
        with pytest.raises(InputError, match=f"{name} is damaged, or no"):
            read_state_dict(tmp_path / name)
    with pytest.raises(InputError, match="there is no such checkpoint file"):
        read_state_dict(tmp_path / "absent.pt")
    with pytest.raises(InputError, match="is a folder, not a checkpoint file"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "holds a list; a state dict is needed"),
        ({"a": 1}, "holds no tensors"),
        ({"w": torch.tensor([1.0, float("nan")])}, "not finite in w"),
    ],
)
def test_files_without_a_valid_state_dict_raise(tmp_path, content, text):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError, match=text):
        read_state_dict(tmp_path / "c.pt")


def test_half_precision_is_cast(net):
    state = {n: v.half() if v.is_floating_point() else v for n, v in net.state_dict().items()}
    state["0.weight"] = torch.full((2, 3), 0.5, dtype=torch.float16)
    load_state_dict(net, state, "c.pt")
    assert net[0].weight.dtype == torch.float32
    assert (net[0].weight == 0.5).all()


def test_batch_norm_counters_may_be_missing(net):
    state = {n: v for n, v in net.state_dict().items() if "num_batches" not in n}
    load_state_dict(net, state, "c.pt")


def test_names_that_do_not_fit_raise_and_nothing_is_loaded(net):
    before = net[0].weight.clone()
    state = {"0.weight": torch.ones(2, 3), **{f"extra.{i}": torch.zeros(1) for i in range(6)}}
    with pytest.raises(InputError) as caught:
        load_state_dict(net, state, "c.pt")
    assert "missing 0.bias, 1.weight, 1.bias, 1.running_mean and 1 more" in str(caught.value)
    assert "unexpected extra.0, extra.1, extra.2, extra.3 and 2 more" in str(caught.value)
    assert torch.equal(net[0].weight, before)


def test_shapes_that_do_not_fit_raise(net):
    state = {**net.state_dict(), "0.weight": torch.ones(5, 3)}
    with pytest.raises(InputError, match=r"0.weight is \(5, 3\) in the file, \(2, 3\) in the network"):
        load_state_dict(net, state, "c.pt")
