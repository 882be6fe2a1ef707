"""Tests of device profiles that are fitted to measured networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from evaluators.cost.fit.__main__ import main
from evaluators.cost.fit.costs import MeasuredNetwork, ReferenceBoard, amounts_of, recast
from evaluators.cost.fit.methods import without_version
from evaluators.cost.fit.profile import fit_profile
from evaluators.cost.fit.reference_boards import REFERENCE_BOARDS
from evaluators.cost.fit.shrinkage import Borrowing, candidates, reference_board, weights
from evaluators.cost.graph import Kernel, OpGraph, op_graph
from evaluators.cost.graph.dead_channels import without_dead_channels
from evaluators.cost.latency.roofline import roofline
from evaluators.devices.config import devices_from_config
from evaluators.devices.device import Device
from spaces.errors import ConfigError
from spaces.stages.artifact import Artifact, InputSpec

FEW = REFERENCE_BOARDS[:4]  # enough for a prior, quick to fit
TINY = Path(__file__).parents[4].parent / "shared/data/mlperf_tiny"
BOARD = Device(
    name="board",
    runtime="test",
    macs_per_s={"int8": {"conv": 2e8, "pointwise": 1e8, "depthwise": 5e7, "fully_connected": 8e7}},
    memory_bandwidth_bytes_per_s=4e7,
    kernel_overhead_us={"default": 20.0},
    run_overhead_us=100.0,
    bound="sum",
)


def kernel(kind: Any, macs: int, n_bytes: int, weight_bytes: int = 0, dtype: Any = "int8") -> Kernel:
    return Kernel(
        name="k",
        op="Conv",
        kind=kind,
        dtype=dtype,
        macs=macs,
        weight_bytes=weight_bytes,
        inputs=("x",),
        outputs=("y",),
        input_bytes=n_bytes // 2,
        output_bytes=n_bytes // 2,
    )


def graph(kernels: Sequence[Kernel]) -> OpGraph:
    return OpGraph(tuple(kernels), ("x",), ("y",), {}, 0, {})


def random_graph(rng: np.random.Generator) -> OpGraph:
    kinds = ("conv", "pointwise", "depthwise", "fully_connected")
    n = int(rng.integers(3, 20))
    return graph(
        [
            kernel(str(rng.choice(kinds)), int(10 ** rng.uniform(4, 6.5)), int(10 ** rng.uniform(3, 5)), 100)
            for _ in range(n)
        ]
    )


def measured(n: int, device: Device = BOARD, noise: float = 0.0, seed: int = 0) -> list[MeasuredNetwork]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        net = random_graph(rng)
        latency = roofline(net, device).latency_ms
        assert latency is not None
        rows.append(MeasuredNetwork(f"net{i}", net, latency * float(np.exp(noise * rng.normal()))))
    return rows


def test_many_networks_recover_the_board_exactly() -> None:
    fitted = fit_profile(measured(40), "board", "test", boards=FEW)
    assert fitted.method.startswith("least squares")
    assert fitted.device.error["latency_ms"] < 1e-6
    assert fitted.device.macs_per_s["int8"]["conv"] == pytest.approx(2e8, rel=1e-3)
    assert fitted.device.memory_bandwidth_bytes_per_s == pytest.approx(4e7, rel=1e-3)
    assert fitted.device.run_overhead_us == pytest.approx(100.0, rel=1e-2)


def test_the_error_holds_for_networks_that_were_not_fitted() -> None:
    fitted = fit_profile(measured(40, noise=0.1), "board", "test", boards=FEW)
    fresh = measured(200, noise=0.1, seed=1)
    off = [abs((roofline(row.graph, fitted.device).latency_ms or 0) / row.latency_ms - 1) for row in fresh]
    assert 0.65 < np.mean(np.array(off) <= fitted.device.error["latency_ms"]) < 0.93


def test_few_networks_with_borrowed_ratios_beat_a_single_scale() -> None:
    improvements = []
    for seed in range(6):
        rows, fresh = measured(4, seed=seed), measured(30, seed=100 + seed)
        fitted = fit_profile(rows, "board", "test")
        assert fitted.method == "borrowed"
        scale = np.exp(np.mean([np.log(row.latency_ms / row.graph.macs) for row in rows]))
        ours = [
            abs((roofline(row.graph, fitted.device).latency_ms or 0) / row.latency_ms - 1) for row in fresh
        ]
        improvements.append(
            np.mean([abs(scale * row.graph.macs / row.latency_ms - 1) for row in fresh]) - np.mean(ours)
        )
    assert np.mean(improvements) > 0.02


@settings(max_examples=10, deadline=None)
@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 5), n=st.integers(2, 6))
def test_scaling_all_latencies_scales_the_prediction(factor: float, seed: int, n: int) -> None:
    rows, asked = measured(n, seed=seed), random_graph(np.random.default_rng(9))
    slower = [replace(row, latency_ms=row.latency_ms * factor) for row in rows]
    one, other = (fit_profile(some, "board", "test", boards=FEW).device for some in (rows, slower))
    a, b = roofline(asked, one).latency_ms, roofline(asked, other).latency_ms
    assert a is not None
    assert b == pytest.approx(a * factor, rel=0.02)


# ms per multiply-accumulate of a class, per byte, and per kernel
COSTS_MS = {
    "conv": 4e-6, "pointwise": 9e-6, "depthwise": 3e-5, "fully_connected": 1.2e-5,
    "activation_byte": 5e-5, "weight_byte": 2e-3, "kernel": 0.04,
}  # fmt: skip


def by_hand_ms(network: OpGraph) -> float:
    return sum(
        k.macs * COSTS_MS[k.kind]
        + max(
            (k.input_bytes + k.output_bytes) * COSTS_MS["activation_byte"],
            k.weight_bytes * COSTS_MS["weight_byte"],
        )
        + COSTS_MS["kernel"]
        for k in network.kernels
    )


def test_a_board_three_times_as_fast_as_its_reference_gets_the_scaled_profile() -> None:
    rng = np.random.default_rng(7)
    networks = [random_graph(rng) for _ in range(3)]
    logs = {name: float(np.log(cost)) for name, cost in COSTS_MS.items()}
    mean = sum(logs.values()) / len(logs)
    slow = ReferenceBoard("slow", "test", "test", {name: log - mean for name, log in logs.items()})
    rows = [MeasuredNetwork(f"net{i}", net, by_hand_ms(net) / 3) for i, net in enumerate(networks)]
    device = fit_profile(rows, "fast", "test", boards=[slow], borrowing=Borrowing(wide=1e-9)).device
    fitted = {kind: device.macs_per_s["int8"][kind] for kind in device.macs_per_s["int8"] if kind in COSTS_MS}
    occurring = {k.kind for net in networks for k in net.kernels}
    assert fitted == pytest.approx({kind: 3e3 / COSTS_MS[kind] for kind in occurring}, rel=5e-3)
    assert device.memory_bandwidth_bytes_per_s == pytest.approx(3e3 / COSTS_MS["activation_byte"], rel=5e-3)
    assert device.flash_bandwidth_bytes_per_s == pytest.approx(3e3 / COSTS_MS["weight_byte"], rel=5e-3)
    assert device.kernel_overhead_us["default"] == pytest.approx(1e3 * COSTS_MS["kernel"] / 3, rel=5e-3)
    fresh = random_graph(rng)
    assert roofline(fresh, device).latency_ms == pytest.approx(by_hand_ms(fresh) / 3, rel=5e-3)


def test_boards_of_the_same_runtime_count_more() -> None:
    rows = measured(2)
    amounts = amounts_of([row.graph for row in rows])
    fits = candidates(amounts, amounts, np.array([r.latency_ms for r in rows]), REFERENCE_BOARDS, Borrowing())
    same = np.array([*(board.runtime == "Plumerai" for board in REFERENCE_BOARDS), False, False])
    known = weights(fits, REFERENCE_BOARDS, Borrowing(), "Plumerai", "Plumerai v1.1")
    unknown = weights(fits, REFERENCE_BOARDS, Borrowing(), "", "")
    assert known.sum() == pytest.approx(1.0)
    assert known[same].sum() > unknown[same].sum()


def test_a_reference_board_keeps_only_ratios() -> None:
    rows = measured(6)
    amounts = amounts_of([row.graph for row in rows])
    latency = np.array([row.latency_ms for row in rows])
    board = reference_board(amounts, amounts, latency, "b", "r", "r 1")
    slower = reference_board(amounts, amounts, latency * 50, "b", "r", "r 1")
    assert board.log_costs == pytest.approx(slower.log_costs, abs=1e-3)
    assert sum(board.log_costs.values()) == pytest.approx(0.0, abs=1e-9)


def test_rows_of_one_network_are_held_out_together() -> None:
    rows = measured(3)
    twice = [*rows, *(replace(row, latency_ms=row.latency_ms * 1.0) for row in rows)]
    assert fit_profile(twice, "b", "r", boards=FEW).latency_errors[:3] == pytest.approx(
        fit_profile(twice, "b", "r", boards=FEW).latency_errors[3:]
    )


@pytest.mark.parametrize("n", [0, 1])
def test_one_network_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match="at least 2 different networks"):
        fit_profile(measured(1) * n * 2, "board", "test")


def test_a_network_without_arithmetic_is_refused() -> None:
    rows = [*measured(2), MeasuredNetwork("idle", graph([kernel("movement", 0, 100)]), 1.0)]
    with pytest.raises(ConfigError, match="idle"):
        fit_profile(rows, "board", "test")


def test_energy_is_the_median_power_times_latency() -> None:
    rows = [
        replace(row, energy_uj=row.latency_ms * power)
        for row, power in zip(measured(3), (40, 42, 90), strict=True)
    ]
    fitted = fit_profile(rows, "board", "test")
    assert fitted.device.active_power_mw == pytest.approx(42)
    assert fitted.device.sources["active_power_mw"].tag == "measured"
    assert fitted.energy_errors[0] == pytest.approx(66 / 40 * (1 + fitted.latency_errors[0]) - 1)
    assert "energy_uj" in fitted.device.error


def test_without_energy_there_is_no_power() -> None:
    fitted = fit_profile(measured(3), "board", "test")
    assert fitted.device.active_power_mw is None
    assert np.isnan(fitted.energy_errors).all()
    assert "energy_uj" not in fitted.device.error


def test_a_residual_is_learned_only_where_it_helps() -> None:
    plain = measured(60, noise=0.05)
    assert fit_profile(plain, "board", "test", boards=FEW).residual is None
    bent = [
        replace(row, latency_ms=row.latency_ms * (3.0 if len(row.graph.kernels) > 11 else 1.0))
        for row in plain
    ]
    fitted = fit_profile(bent, "board", "test", boards=FEW)
    assert fitted.residual is not None
    corrected = fitted.errors_by_method[f"{fitted.method}, corrected"]
    assert corrected < 0.7 * fitted.errors_by_method[fitted.method]
    assert fitted.device.error["latency_ms"] == pytest.approx(np.quantile(np.abs(fitted.latency_errors), 0.8))


def test_eager_wins_where_dead_branches_are_executed() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for row in measured(60):
        extra = [kernel("conv", int(10 ** rng.uniform(5, 7)), 1000) for _ in range(int(rng.integers(0, 6)))]
        eager = graph([*row.graph.kernels, *extra])
        rows.append(replace(row, eager=eager, latency_ms=roofline(eager, BOARD).latency_ms or 0))
    fitted = fit_profile(rows, "board", "test", boards=FEW)
    assert fitted.device.fusion == "eager"
    assert fitted.device.error["latency_ms"] < 1e-6


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("X-CUBE-AI 9.0", "X-CUBE-AI"),
        ("Plumerai v1.1", "Plumerai"),
        ("TensorFlow Lite", "TensorFlow Lite"),
        ("", ""),
    ],
)
def test_without_version(runtime: str, expected: str) -> None:
    assert without_version(runtime) == expected


def test_recast_takes_a_float_graph_to_8_bits() -> None:
    net = graph([kernel("conv", 100, 400, 80, "float32"), kernel("conv", 100, 400, 80, "int8")])
    float_one, int_one = recast(net, "int8").kernels
    assert (float_one.dtype, float_one.weight_bytes, float_one.input_bytes) == ("int8", 20, 50)
    assert int_one == net.kernels[1]
    four = recast(net, "int4").kernels[0]
    assert (four.weight_bytes, four.input_bytes) == (10, 50)  # activations stay at 8 bits


def conv_net(path: Path, dead: int, channels: int = 8, seed: int = 0) -> Path:
    """3x3 convolution, depthwise, pointwise; `dead` filters of the first are zero."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(channels, 3, 3, 3)).astype(np.float32)
    first[:dead] = 0
    second = rng.normal(size=(channels, 1, 3, 3)).astype(np.float32)
    third = rng.normal(size=(4, channels, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], pads=[1, 1, 1, 1], group=channels),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w2"], ["y"]),
    ]
    size = 8
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, size, size])],
            [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate((first, second, third))],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("dead", [0, 3])
def test_dead_channels_are_followed_through_the_network(tmp_path: Path, dead: int) -> None:
    artifact = Artifact.onnx(onnx.load(conv_net(tmp_path / "n.onnx", dead)), InputSpec((3, 8, 8), "x"))
    whole = op_graph(artifact)
    lean = without_dead_channels(whole, artifact)
    left = 8 - dead
    assert [k.macs for k in lean.kernels] == [64 * 27 * left, 64 * 9 * left, 64 * 4 * left]
    assert (lean is whole) == (dead == 0)


def test_constant_channels_of_the_reference_network() -> None:
    file = TINY / "vww_96_float.onnx"
    if not file.exists():
        pytest.skip(f"{file} is absent")
    artifact = Artifact.onnx(onnx.load(file), InputSpec((96, 96, 3), "input_1"))
    graph_ = op_graph(artifact)
    assert graph_.macs == 7_489_664
    assert without_dead_channels(graph_, artifact).macs == pytest.approx(3_742_559, rel=1e-3)


def write_csv(folder: Path, lines: Sequence[str]) -> Path:
    for i in range(3):
        conv_net(folder / f"m{i}.onnx", dead=0, channels=4 * (i + 1), seed=i)
    path = folder / "measurements.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


GOOD = [
    "model,latency_ms,energy_uj,dtype",
    "m0.onnx,1.0,40,int8",
    "m1.onnx,1.8,75,int8",
    "m2.onnx,3.1,130,int8",
]


def test_the_command_writes_a_profile_that_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my_board.yaml"
    path = write_csv(tmp_path, GOOD)
    arguments = [
        str(path),
        "--name",
        "my_board",
        "--runtime",
        "engine 1.0",
        "--out",
        str(out),
        "--source",
        "A lab",
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out == out.read_text()
    device = devices_from_config(yaml.safe_load(out.read_text()))["my_board"]
    assert device.runtime == "engine 1.0"
    assert device.bound == "sum"
    assert device.error["latency_ms"] > 0
    assert device.sources["macs_per_s"].text.startswith("A lab")
    artifact = Artifact.onnx(onnx.load(tmp_path / "m1.onnx"), InputSpec((3, 8, 8), "x"))
    assert roofline(recast(op_graph(artifact), "int8"), device).latency_ms == pytest.approx(1.8, rel=0.3)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["model,latency", "m0.onnx,1"], "column 'latency_ms' is missing"),
        (["model,latency_ms,energy_mj", "m0.onnx,1,2"], "energy_uj"),
        (["", ""], "column 'model' is missing"),
        ([*GOOD, "m0.onnx,-2,1,int8"], "row 5, column 'latency_ms': expected a number above zero, got '-2'"),
        ([*GOOD, "m0.onnx,fast,1,int8"], "row 5, column 'latency_ms'"),
        ([*GOOD, "m0.onnx,nan,1,int8"], "row 5, column 'latency_ms'"),
        ([*GOOD, "m0.onnx,,1,int8"], "row 5, column 'latency_ms': is empty"),
        ([*GOOD, "m0.onnx,1,0,int8"], "row 5, column 'energy_uj'"),
        ([*GOOD, "m0.onnx,1,1,int7"], "Unknown dtype 'int7'"),
        ([*GOOD, "gone.onnx,1,1,int8"], "row 5, column 'model'"),
        ([*GOOD, ",1,1,int8"], "row 5, column 'model': is empty"),
        ([*GOOD, "measurements.csv,1,1,int8"], "row 5, column 'model'"),
        (GOOD[:2], "at least 2 different networks"),
        (GOOD[:1], "at least 2 different networks"),
    ],
)
def test_invalid_input_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], expected: str
) -> None:
    path = write_csv(tmp_path, lines)
    assert main([str(path), "--name", "b", "--runtime", "r", "--out", str(tmp_path / "b.yaml")]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert not (tmp_path / "b.yaml").exists()


def test_a_missing_csv_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.csv"), "--name", "b", "--runtime", "r"]) == 2
    assert "none.csv" in capsys.readouterr().err
