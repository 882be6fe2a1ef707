import numpy as np
import pytest
import torch
from torch.nn import functional

from spaces.errors import StageError
from spaces.stages.output_spec import OutputSpec
from spaces.stages.torch_outputs import judged_output, names_of


def test_columns_of_a_logit_and_of_a_probability_have_the_binary_cross_entropy():
    z = torch.tensor([[-2.0], [0.5], [3.0]])
    labels = torch.tensor([0, 1, 0])
    wanted = functional.binary_cross_entropy_with_logits(z[:, 0], labels.float())
    for spec, output in ((OutputSpec(binary="logit"), z), (OutputSpec(binary="probability"), z.sigmoid())):
        assert torch.isclose(functional.cross_entropy(spec.logits(output), labels), wanted)
        np.testing.assert_array_equal(spec.rows(output.numpy()).argmax(1), [0, 1, 1])
    assert torch.isfinite(OutputSpec(binary="probability").logits(torch.tensor([[0.0], [1.0]]))).all()


def test_a_map_of_classes_is_left_as_it_is():
    output = torch.zeros(2, 3, 4, 4)
    assert OutputSpec().logits(output) is output
    assert OutputSpec().logits(output[..., :1, :1]).shape == (2, 3)


def test_names_and_positions_of_a_network_s_outputs():
    a, b, c = (torch.full((2, 3), float(i)) for i in range(3))
    assert names_of(a, "output") == ["output"]
    assert names_of((a, [b, c]), "output") == ["output", "output_1", "output_2"]
    assert names_of({"logits": a, "hidden": (b, c)}, "output") == ["logits", "hidden", "hidden_1"]
    assert judged_output({"aux": a, "logits": b}, OutputSpec(position=1)) is not a
    assert torch.equal(judged_output({"aux": a, "logits": b}, OutputSpec(position=1)), b)
    with pytest.raises(StageError, match="returns 1 tensors, but the task judges number 2"):
        judged_output(a, OutputSpec(position=1))
