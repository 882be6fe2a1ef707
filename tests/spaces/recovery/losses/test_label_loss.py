import pytest
import torch

from spaces.errors import StageError
from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.training.batch import Batch
from spaces.task_losses import LOSSES

LABELS = torch.tensor([[1, 2, -1], [-1, -1, -1]])  # the second transcript is empty
OUTPUTS = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


def test_an_empty_transcript_is_trained_on():
    loss = LabelLoss(loss=LOSSES["ctc"])(OUTPUTS, Batch(torch.zeros(2, 1), LABELS))
    assert loss.item() == pytest.approx(LOSSES["ctc"].each(OUTPUTS, LABELS, 0.0).mean().item())


def test_a_sequence_without_classes_is_not():
    with pytest.raises(StageError, match="tokens needs labels"):
        LabelLoss(loss=LOSSES["tokens"])(OUTPUTS[:, :3], Batch(torch.zeros(2, 1), LABELS))
