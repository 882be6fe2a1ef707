"""The uniform format: the error bound, the projects' grids packed exactly, and refused options."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spaces.errors import ConfigError, StageError
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.testing import WeightFormatConformance, assert_round_trip, sample_weight
from spaces.quantization.formats.uniform import WIDTHS, Uniform, pack
from spaces.quantization.schemes.scheme import SCHEMES, make_grid

WEIGHTS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9), elements=st.floats(-8, 8, width=32)
)
OPTIONS = st.builds(
    Uniform,
    st.sampled_from(WIDTHS),
    st.sampled_from(["tensor", "channel", 1, 4, 100]),
    st.booleans(),
    st.sampled_from(["float16", "float32"]),
)


class TestConformance(WeightFormatConformance):
    @pytest.fixture(params=[(2, "tensor"), (3, 4), (4, "channel"), (8, 64), (16, "channel")])
    def weight_format(self, request: pytest.FixtureRequest) -> WeightFormat:
        return Uniform(*request.param)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, OPTIONS, st.integers(-1, 1))
def test_blob_round_trip_and_error_of_at_most_half_a_step(weight, form, axis) -> None:
    packed = form.encode(weight, axis)
    assert_round_trip(packed)
    shape = (1, -1) if form.group == "tensor" else (weight.shape[axis], -1)
    rows = np.moveaxis(weight, axis, 0).reshape(shape)
    errors = np.abs(np.moveaxis(packed.values - weight, axis, 0)).reshape(shape)
    size = form.group if isinstance(form.group, int) else rows.shape[1]
    for start in range(0, rows.shape[1], size):
        for row, error in zip(rows[:, start : start + size], errors[:, start : start + size], strict=True):
            assert error.max() <= half_a_step(np.append(row, 0), form) + 1e-6 * np.abs(row).max()


def half_a_step(values: np.ndarray, form: Uniform) -> float:
    """Returns half of the largest scale that the range needs: a float16 is rounded up by at most 2^-10 of it, or by 2^-24."""
    steps = 2 ** (form.bits - 1) - 1 if form.symmetric else 2**form.bits - 1
    step = (np.abs(values).max() if form.symmetric else np.ptp(values)) / steps
    return 0.5 * step * (1 + 2**-10 * (form.scale_dtype == "float16")) + 2**-24


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("axis", [None, 1])
def test_grids_of_the_project_are_packed_exactly(scheme: str, bits: int, axis: int | None) -> None:
    weight = sample_weight((5, 6, 3, 3))
    over = None if axis is None else (0, 2, 3)
    rule = SCHEMES[scheme].weights if axis is None else SCHEMES[scheme].channel_weights
    grid = make_grid(rule, weight.min(axis=over), weight.max(axis=over), bits, axis=axis)
    shape = (1, -1, 1, 1) if axis is not None else ()
    scale, zero = grid.scale.reshape(shape), grid.zero_point.reshape(shape)
    half = 2 ** (bits - 1)
    nearest = np.clip(np.round(weight / scale) + zero, -half, half - 1).astype(np.int64)
    packed = pack(nearest, grid)
    assert packed.decoded().tobytes() == grid.dequantized(weight).tobytes()
    # Learned rounding moves integers by 1: they are kept as they are.
    moved = np.clip(nearest + np.random.default_rng(0).integers(-1, 2, nearest.shape), -half, half - 1)
    packed = pack(moved, grid)
    assert packed.decoded().tobytes() == ((moved - zero) * scale).astype(np.float32).tobytes()
    n_scales = 1 if axis is None else weight.shape[axis]
    zeros = 0 if not grid.zero_point.any() else -(-n_scales * bits // 8)
    assert packed.packed_bytes == -(-weight.size * bits // 8) + 4 * n_scales + zeros


def test_integers_in_a_wider_container_are_packed_at_their_true_width() -> None:
    grid = make_grid(SCHEMES["symmetric"].weights, -1.0, 1.0, 4)
    integers = np.array([[-2, -1, 0, 1]])
    assert pack(integers, grid, bits=2).packed_bytes == 1 + 4
    assert pack(integers, grid, bits=2).decoded().tobytes() == pack(integers, grid).decoded().tobytes()
    with pytest.raises(StageError, match=r"must lie in \[-2, 2\) to be stored in 2 bits.* from -4 to 2"):
        pack(2 * integers, grid, bits=2)


def test_refuses_scales_beyond_float16() -> None:
    weight = np.full((1, 4), 3e6, np.float32)
    with pytest.raises(StageError, match="use scale_dtype=float32"):
        Uniform(4).encode(weight)
    np.testing.assert_allclose(Uniform(4, scale_dtype="float32").encode(weight).values, weight, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, r"uniform.bits must be one of .*, but is 9"),
        ({"group": 0}, "uniform.group must be tensor, channel"),
        ({"group": "row"}, "uniform.group must be tensor, channel"),
        ({"scale_dtype": "int8"}, "uniform.scale_dtype must be one of"),
    ],
)
def test_refuses_unknown_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Uniform(**options)
