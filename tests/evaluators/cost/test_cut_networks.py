"""Tests file, counts and accuracy of a published network that is pruned to half its size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import nn

from evaluators.cost.graph.op_graph import op_graph
from evaluators.runtime import run_split
from evaluators.task.tasks.classification.cifar10 import Cifar10Task
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.zoo.cifar_resnet import CifarResNetModel
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.prune import PruneStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

DATA = Path(__file__).parents[3].parent / "shared/data"

pytestmark = pytest.mark.slow


def data(*parts):
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is absent")
    return str(path)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    model = CifarResNetModel(20, data("weights", "resnet20-12fca82f.th"))
    return model.load(LoadContext(None, tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def splits():
    return Cifar10Task(data("cifar10")).splits()


@pytest.fixture(scope="module")
def context(splits):
    return StageContext(splits.calibration, Cache(), train=splits.train)


def accuracy(module, split, n=1000):
    with torch.no_grad():
        hits = [module(torch.from_numpy(x)).argmax(1).numpy() == y for x, y in split.batches(250, limit=n)]
    return 100 * float(np.concatenate(hits).mean())


@pytest.mark.parametrize(
    "values",
    [
        {"keep": 0.5},
        {"keep": 0.5, "criterion": "fpgm", "round_to": 4},
        {"keep": 0.5, "criterion": "condition", "protect": ("conv1.weight", "layer?.?.conv2.weight")},
        {"keep": 0.5, "budget_of": "weight_bytes", "drop_blocks": 2, "mask_tuning": True},
    ],
)
def test_the_budget_is_met_and_the_file_agrees_with_the_network(dense, context, splits, values):
    result = PruneStage().apply(dense, values, context)
    kind = str(values.get("budget_of", "macs"))
    before, after = (total(layer_counts(a.model, a.input.shape).values()) for a in (dense, result))
    assert abs(getattr(after, kind) / getattr(before, kind) - 0.5) <= 0.02
    exported = ExportStage().apply(result, {}, context)
    assert op_graph(exported).macs == after.macs
    weights = [w for w in exported.proto().graph.initializer if w.data_type == TensorProto.FLOAT]
    norms = [m.num_features for m in result.model.modules() if isinstance(m, nn.BatchNorm2d)]
    # A folded BatchNorm leaves one vector, a bias, of its two.
    assert sum(int(np.prod(w.dims)) for w in weights) == after.parameters - sum(norms)
    x, y = next(iter(splits.validation.batches(64)))
    with torch.no_grad():
        wanted = result.model(torch.from_numpy(x)).numpy()
    got, _ = run_split(exported, ArraySplit(x, y), batch_size=64, threads=1)
    assert np.abs(got - wanted).max() < 1e-4


def test_reestimated_batch_norm_statistics_restore_accuracy(dense, context, splits):
    def after(**values):
        return accuracy(PruneStage().apply(dense, {"keep": 0.5, **values}, context).model, splits.validation)

    stale, fresh = after(reestimate_batch_norm=False), after()
    assert fresh > stale + 15
    assert fresh > 40
