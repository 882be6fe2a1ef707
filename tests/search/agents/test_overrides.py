"""What an agent may not put on the command line; nothing here runs anything."""

import pytest

from search.agents.overrides import checked_overrides, inside
from spaces.errors import ConfigError


@pytest.mark.parametrize(
    "override",
    [
        "device=stm32h743",
        "device=[host,stm32h743]",
        "stage=[prune,recover,export,quantize]",
        "model.checkpoint=nets/net.onnx",
        "task.input_shape={input_ids: [128], attention_mask: [128]}",
        "+space.quantize.clipping=[max]",
        "tracker.uri=sqlite:///mlflow.db",
        "study.n_trials=20",
        "~space.quantize.percentile",
    ],
)
def test_the_common_overrides_pass(tmp_path, override):
    assert checked_overrides([override], tmp_path) == [override]


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("trusted_modules=[os]", "trusted"),
        ("+model.trusted_modules=[os]", "trusted"),
        ("model={_target_: a.b, trusted_modules: [os]}", "trusted"),
        ("hydra.searchpath=[pkg://evil]", "trusted"),
        ("+hydra/launcher=evil", "trusted"),
        ("executor.address=ray://evil:1", "trusted"),
        ("--config-dir=/tmp", "no override"),
        ("--multirun", "no override"),
        ("dry_run", "no override"),
        ("seed=1,2", "sweep"),
        ("seed=range(3)", "sweep"),
        ("study.name=x", "outputs/NAME"),
        ("study.dir=/tmp", "outputs/NAME"),
        ("model.checkpoint=/etc/passwd", "outside"),
        ("model.checkpoint=../net.onnx", "outside"),
        ("model.checkpoint='../net.onnx'", "outside"),
        ("task.root='~/data'", "outside"),
        ("+x={a: [{b: /etc}]}", "outside"),
        ("tracker.uri=sqlite:////tmp/x.db", "outside"),
        ("tracker.uri=http://evil/x", "address"),
        ("study.storage=postgresql://evil/x", "address"),
        ("task.root=${oc.env:HOME}", "interpolate"),
        ("task.root='${oc.env:HOME}'", "interpolate"),
        ("a=[", "cannot be read"),
    ],
)
def test_code_addresses_and_files_elsewhere_are_refused(tmp_path, override, why):
    with pytest.raises(ConfigError, match=why):
        checked_overrides(["seed=1", override], tmp_path)


def test_a_link_that_leads_out_is_refused(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    with pytest.raises(ConfigError, match="outside"):
        checked_overrides(["task.root=link/data.npz"], root)


def test_a_path_inside_is_resolved(tmp_path):
    assert inside("a/../b.npz", tmp_path, "x") == (tmp_path / "b.npz").resolve()
