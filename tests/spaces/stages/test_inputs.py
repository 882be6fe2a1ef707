import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from spaces.errors import InputError
from spaces.stages.artifact import InputSpec, TensorSpec
from spaces.stages.inputs import cast_to, joined_inputs, n_bytes, n_rows, packed, sole
from spaces.stages.output_spec import OutputSpec
from spaces.stages.torch_artifact import torch_artifact

SPEC = InputSpec(
    (3,),
    "tokens",
    "int64",
    OutputSpec("y", 1, "logit"),
    (TensorSpec((2, 2), "image"), TensorSpec((), "length", "int32"), TensorSpec((2,), "mask", "bool")),
)


class Named(nn.Module):
    """Returns what it was given, side by side, and insists on the types; its arguments have an order of their own."""

    def forward(self, image, tokens, mask, length):
        assert [t.dtype for t in (tokens, length, mask)] == [torch.int64, torch.int32, torch.bool]
        return torch.cat([tokens.to(image.dtype), image.flatten(1), length[:, None], mask], 1)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "bool", "float16", "float64"])
def test_values_that_a_type_represents_are_cast(dtype):
    array = np.array([[0.0, 1.0]], np.float32)
    assert cast_to(dtype, array, "x").dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint8", 0.5), ("uint8", 256.0), ("uint8", -1.0), ("int64", np.nan), ("bool", 2.0), ("float16", 1e6)],
)
def test_values_that_a_type_cannot_represent_are_refused(dtype, value):
    with pytest.raises(InputError, match=f"input 'x' takes {dtype}, but the task's examples hold {value}"):
        cast_to(dtype, np.array([[0.0, value]], np.float32), "x")


def test_a_spec_survives_json_and_makes_batches():
    assert InputSpec.of(json.loads(json.dumps(asdict(SPEC)))) == SPEC
    for batch in (SPEC.zeros(4), SPEC.noise(4)):
        assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == {
            "tokens": ((4, 3), "int64"),
            "image": ((4, 2, 2), "float32"),
            "length": ((4,), "int32"),
            "mask": ((4, 2), "bool"),
        }
        assert n_rows(batch) == 4
        assert n_bytes(batch) == 4 * (3 * 8 + 4 * 4 + 4 + 2)
        assert n_rows(joined_inputs([batch, batch])) == 8
    assert InputSpec((5,)).noise(2).shape == (2, 5)


def test_missing_inputs_and_a_single_array_are_refused_by_name():
    with pytest.raises(InputError, match="no examples are given for image, mask"):
        SPEC.feeds({"tokens": np.zeros((1, 3)), "length": np.zeros(1)})
    with pytest.raises(InputError, match="no examples are given for image, length, mask"):
        SPEC.feeds(np.zeros((1, 3)))
    with pytest.raises(InputError, match="robustness takes one input, but the task has 4: tokens, image"):
        sole(SPEC.zeros(1), "robustness")


def test_a_torch_network_takes_packed_inputs_apart():
    batch = SPEC.noise(4)
    module = torch_artifact(Named(), SPEC).model
    by_name = module(**{name: torch.from_numpy(a) for name, a in batch.items()})
    assert packed(batch).shape == (4, SPEC.size) == (4, *SPEC.packed_shape)
    assert torch.equal(module(torch.from_numpy(packed(batch))), by_name)
    again = torch_artifact(module, SPEC).model
    assert len(again._forward_pre_hooks) == 1


def test_whole_numbers_beyond_float32_are_not_packed():
    with pytest.raises(InputError, match=r"input 'ids' holds whole numbers above 2\*\*24"):
        packed({"ids": np.array([[2**24 + 1]])})


def test_a_mapping_of_one_input_is_that_input():
    x = np.zeros((2, 3, 4), np.float32)
    assert packed({"x": x}).shape == x.shape
    assert sole({"x": x}, "it") is x
    tokens = torch_artifact(nn.Embedding(3, 2), InputSpec((4,), "x", "int64")).model
    assert tokens(torch.from_numpy(packed({"x": np.ones((2, 4), np.int64)}))).shape == (2, 4, 2)
