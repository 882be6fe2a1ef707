import numpy as np
import pytest
import torch
from torch.nn import functional

from spaces.task_losses import LOSSES


def positions(layout="NCHW", size=(6, 5)):
    torch.manual_seed(0)
    outputs = torch.randn(3, 4, *size)
    labels = torch.randint(-1, 4, (3, 6, 5))
    return (outputs if layout == "NCHW" else outputs.movedim(1, -1)), labels


def by_hand(outputs, labels):
    """Mean of -log p over the labelled positions of each example."""
    logs = outputs.log_softmax(1)
    return torch.stack(
        [torch.stack([-log[y, i, j] for i, row in enumerate(label) for j, y in enumerate(row) if y >= 0]).mean()
         for log, label in zip(logs, labels, strict=True)]
    )  # fmt: skip


def test_cross_entropy_over_labelled_positions():
    outputs, labels = positions()
    torch.testing.assert_close(LOSSES["cross_entropy"].each(outputs, labels, 0.0), by_hand(outputs, labels))


def test_classes_in_the_last_axis():
    outputs, labels = positions("NHWC")
    found = LOSSES["cross_entropy_last"].each(outputs, labels, 0.0)
    torch.testing.assert_close(found, by_hand(outputs.movedim(-1, 1), labels))
    assert outputs.shape[LOSSES["cross_entropy_last"].class_axis] == 4


def test_outputs_smaller_than_masks_are_interpolated():
    outputs, labels = positions(size=(3, 5))
    large = functional.interpolate(outputs, (6, 5), mode="bilinear")
    torch.testing.assert_close(LOSSES["cross_entropy"].each(outputs, labels, 0.0), by_hand(large, labels))


@pytest.mark.parametrize("name", ["binary", "probability"])
def test_positions_without_a_label_do_not_count(name):
    torch.manual_seed(0)
    outputs = torch.randn(3, 1, 2, 4)
    outputs = outputs.sigmoid() if name == "probability" else outputs
    labels = torch.randint(-1, 2, (3, 2, 4))
    found = LOSSES[name].each(outputs, labels, 0.0)
    shares = outputs if name == "probability" else outputs.sigmoid()
    for loss, share, label in zip(found, shares.flatten(1), labels.flatten(1), strict=True):
        right = torch.where(label == 1, share, 1 - share)[label >= 0]
        assert float(loss) == pytest.approx(float(-right.log().mean()), rel=1e-5)


def test_all_labels_count_where_none_is_missing():
    outputs, labels = torch.randn(3, 5), torch.randint(0, 2, (3, 5)).float()
    wanted = functional.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(1)
    torch.testing.assert_close(LOSSES["binary"].each(outputs, labels, 0.0), wanted)


def test_a_reconstruction_is_compared_with_the_input_alone():
    outputs, inputs = torch.randn(3, 5, 2), torch.randn(3, 10)
    labels = torch.cat([torch.tensor([[1.0, 7.0]] * 3), inputs], 1)
    loss = LOSSES["reconstruction"]
    torch.testing.assert_close(loss.each(outputs, labels, 0.0), ((outputs.flatten(1) - inputs) ** 2).mean(1))
    assert labels.shape[1] - loss.n_extra == outputs[0].numel()
    assert loss.usable(np.asarray(labels))
