import numpy as np
import pytest
import torch

from spaces.task_losses import LOSSES

LABELS = torch.tensor([[1, 2, 2], [3, -1, -1], [-1, -1, -1]])
OUTPUTS = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))


def probability(logits, symbols, blank=0):
    """The probability of a transcript: the sum over all paths that decode to it."""
    shares = torch.softmax(logits, 1).double().numpy()
    total = 0.0
    for path in np.ndindex(*[shares.shape[1]] * len(shares)):
        merged = [c for i, c in enumerate(path) if i == 0 or c != path[i - 1]]
        if [c for c in merged if c != blank] == symbols:
            total += np.prod(shares[np.arange(len(path)), path])
    return total


@pytest.mark.parametrize(("name", "blank"), [("ctc", 0), ("ctc_last", 3)])
def test_the_loss_is_the_log_probability_per_symbol(name, blank):
    labels = LABELS if blank == 0 else torch.where(LABELS > 0, LABELS - 1, LABELS)
    found = LOSSES[name].each(OUTPUTS, labels, 0.0)
    for row, symbols in enumerate(labels.tolist()):
        kept = [symbol for symbol in symbols if symbol >= 0]
        expected = -np.log(probability(OUTPUTS[row], kept, blank)) / max(len(kept), 1)
        assert found[row].item() == pytest.approx(expected, rel=1e-4)


def test_empty_transcripts_can_be_trained_on_and_classes_cannot_be_missing():
    assert LOSSES["ctc"].usable(LABELS.numpy())
    assert not LOSSES["tokens"].usable(LABELS.numpy())
    assert not LOSSES["ctc"].usable(LABELS.numpy().astype(float))


def test_a_transcript_that_does_not_fit_has_no_gradient():
    outputs = OUTPUTS[:, :2].clone().requires_grad_()
    losses = LOSSES["ctc"].each(outputs, LABELS, 0.0)
    losses.sum().backward()
    assert losses[0].item() == 0
    assert outputs.grad.isfinite().all()


def test_classes_lie_along_the_last_axis_for_distillation():
    assert LOSSES["ctc"].class_axis == LOSSES["ctc_last"].class_axis == 2
