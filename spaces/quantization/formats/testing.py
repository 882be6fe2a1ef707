"""What a weight format has to keep to, as tests to inherit.

::

    class TestMine(WeightFormatConformance):
        @pytest.fixture
        def weight_format(self) -> WeightFormat:
            return Mine(bits=3)
"""

import pickle

import numpy as np
import pytest

from spaces.errors import InputError, StageError
from spaces.quantization.formats.base import Packed, WeightFormat
from spaces.quantization.formats.packing.groups import Weight

# Shape and channel axis: Conv, Gemm, MatMul, attention with several heads, a vector, one weight. Rows of 27, 50 and 5 inputs
# leave the last group short and the last byte partly filled.
WEIGHTS = (((8, 3, 3, 3), 0), ((6, 50), 0), ((50, 6), 1), ((2, 5, 4), 2), ((7,), 0), ((1, 1), 0))


def sample_weight(shape: tuple[int, ...], seed: int = 0) -> Weight:
    """Returns normally distributed weights with a few outliers."""
    rng = np.random.default_rng(seed)
    weight = 0.1 * rng.standard_normal(shape)
    return np.where(rng.random(shape) < 0.02, 10 * weight, weight).astype(np.float32)


class WeightFormatConformance:
    """Inherit it and define the fixture `weight_format`."""

    @pytest.fixture
    def weight_format(self) -> WeightFormat:
        """Returns the format under test."""
        raise NotImplementedError("define a fixture `weight_format` that returns the format")

    @pytest.mark.parametrize(("shape", "axis"), WEIGHTS)
    def test_blob_round_trip(self, weight_format: WeightFormat, shape: tuple[int, ...], axis: int) -> None:
        """The blob decodes to the chosen weights bit by bit, has the stated size, and encodes the same way twice."""
        weight = sample_weight(shape)
        packed = weight_format.encode(weight, axis)
        assert_round_trip(packed)
        assert packed.values.shape == shape
        assert packed.values.dtype == np.float32
        assert weight_format.encode(weight, axis).blob == packed.blob

    @pytest.mark.parametrize(("shape", "axis"), WEIGHTS)
    def test_never_worse_than_zeros(
        self, weight_format: WeightFormat, shape: tuple[int, ...], axis: int
    ) -> None:
        """The sum of squared errors is not above that of zeros."""
        weight = sample_weight(shape, seed=1)
        errors = weight_format.encode(weight, axis).values - weight
        assert np.square(errors).sum() <= np.square(weight).sum() * (1 + 1e-6)

    def test_importance_changes_no_size(self, weight_format: WeightFormat) -> None:
        """With any importance the blob has the same size, and decodes to the chosen weights."""
        weight = sample_weight((6, 50))
        packed = weight_format.encode(weight, 0, sample_weight((6, 50), seed=2) ** 2)
        assert_round_trip(packed)

    def test_weights_of_zero_stay_zero_or_small(self, weight_format: WeightFormat) -> None:
        """A weight of zeros can be encoded, and stays near 0."""
        packed = weight_format.encode(np.zeros((4, 9), np.float32), 0)
        assert_round_trip(packed)
        assert np.abs(packed.values).max() <= 1e-6

    def test_refuses_weights_that_are_not_finite(self, weight_format: WeightFormat) -> None:
        """The message says how many."""
        weight = np.array([[1, np.nan, np.inf]], np.float32)
        with pytest.raises(StageError, match="2 of 3 weights are not finite"):
            weight_format.encode(weight)

    def test_refuses_a_blob_of_another_size(self, weight_format: WeightFormat) -> None:
        """A byte more or less is an error."""
        packed = weight_format.encode(sample_weight((6, 50)))
        for blob in (packed.blob[:-1], packed.blob + b"\0"):
            with pytest.raises(InputError, match="packed weight"):
                weight_format.decode(blob, (6, 50))

    def test_is_a_value(self, weight_format: WeightFormat) -> None:
        """Formats can be pickled, hashed and compared, as caches and workers need."""
        copy = pickle.loads(pickle.dumps(weight_format))  # noqa: S301 (our own bytes)
        assert copy == weight_format
        assert hash(copy) == hash(weight_format)


def assert_round_trip(packed: Packed) -> None:
    """Asserts that the blob decodes to the chosen weights bit by bit, and has the stated size."""
    decoded = packed.decoded()
    assert decoded.dtype == np.float32
    assert decoded.tobytes() == packed.values.tobytes()  # -0 and 0 differ, too
    assert packed.packed_bytes == packed.format.n_bytes(packed.values.shape, packed.axis)
