"""Outputs `(steps, n, classes)`: chosen, evaluated and trained on as `(n, steps, classes)`."""

import numpy as np
import pytest
import torch

from evaluators.runtime import reference_outputs
from evaluators.task.data.sequences.digit_rows import DigitRowsData
from evaluators.task.data_fit import check_fit
from evaluators.task.tasks.sequences.transcripts import TranscriptsTask
from spaces.errors import InputError
from spaces.models.export import ExportStage
from spaces.models.zoo.sequences.row_reader import RowReader
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_outputs import judged_output


class TimeFirst(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.reader = RowReader(width=8)

    def forward(self, x):
        return self.reader(x).transpose(0, 1)


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch_artifact(TimeFirst(), InputSpec((1, 8, 64)))


def exported(network):
    return ExportStage().apply(network, {}, StageContext(None, Cache()))


def task(**settings):
    return TranscriptsTask(DigitRowsData(rows=3), "0123456789", **settings)


def test_outputs_are_read_with_the_examples_first(network):
    transcripts = task(time_first=True)
    splits = transcripts.splits()
    fit = check_fit(exported(network), transcripts, splits)
    model = exported(network).judged_by(fit.output)
    x = splits.validation.inputs
    with torch.no_grad():
        expected = network.model.reader(torch.from_numpy(x)).numpy()
        trained_on = judged_output(network.model(torch.from_numpy(x)), fit.output).numpy()
    np.testing.assert_allclose(reference_outputs(model, splits.validation, batch_size=4), expected, atol=1e-4)
    np.testing.assert_allclose(trained_on, expected, atol=1e-4)


def test_without_the_setting_they_are_refused(network):
    with pytest.raises(InputError, match=r"task\.time_first=true is for outputs \(steps, n, classes\)"):
        check_fit(exported(network), task(), task().splits())
