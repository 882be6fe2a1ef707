"""Tiny real studies: a network of a few hundred weights, quantized and evaluated within a second."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from search.api import compose
from search.planning import plan_compression
from search.planning.gather_knowledge import knowledge_of
from search.planning.session import prepare
from search.study.study import run_study
from search.study.testing import SilentObserver
from tests.search import newcomer


def network(seed, channels=4):
    """A network for 8x8 digits with a depthwise layer and a skip connection, untrained."""
    rng = np.random.default_rng(seed)

    def stored(name, *shape):
        return numpy_helper.from_array(rng.normal(0, 0.5, shape).astype(np.float32), name)

    weights = [
        stored("stem.weight", channels, 1, 3, 3),
        stored("depthwise.weight", channels, 1, 3, 3),
        stored("pointwise.weight", channels, channels, 1, 1),
        stored("head.weight", channels, 10),
        stored("head.bias", 10),
    ]
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["input", "stem.weight"], ["a"], name="n0", **same),
        helper.make_node("Relu", ["a"], ["b"], name="n1"),
        helper.make_node("Conv", ["b", "depthwise.weight"], ["c"], name="n2", group=channels, **same),
        helper.make_node("Conv", ["c", "pointwise.weight"], ["d"], name="n3", kernel_shape=[1, 1]),
        helper.make_node("Add", ["b", "d"], ["e"], name="n4"),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], name="n5"),
        helper.make_node("Flatten", ["f"], ["g"], name="n6"),
        helper.make_node("Gemm", ["g", "head.weight", "head.bias"], ["output"], name="n7"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


SPACE = {
    "quantize": {
        "scheme": ["asymmetric", "symmetric"],
        "granularity": ["tensor", "channel"],
        "weight_bits": [4, 8],
        "calibration_images": 16,
    }
}


class Lab:
    """Runs tiny studies below one folder."""

    def __init__(self, folder):
        self.folder = folder
        self._models = {}

    def model(self, name):
        """Returns the path of a network's ONNX file; each name has a network of its own."""
        if name not in self._models:
            path = self.folder / f"{name}.onnx"
            onnx.save(network(seed=len(self._models), channels=4 + 2 * len(self._models)), path)
            self._models[name] = path
        return self._models[name]

    def planned(self, name, model="one", *overrides, space=SPACE):
        """Returns the plan of a study and its knowledge."""
        config = compose(
            [
                "model=onnx", f"model.checkpoint={self.model(model)}", "evaluator=[accuracy,cost]",
                "device=[stm32h743]", "objective=accuracy_size", "objective.constraints.drop=null", "tracker=none", "executor=serial",
                "task.calibration=16", "task.validation=100", "task.test=50", "study.report=false",
                f"study.name={name}", f"study.dir={self.folder / 'outputs' / name}", "study.n_trials=4",
                f"cache_dir={self.folder / 'cache'}", "sampler=quantune_transfer", *overrides,
            ],
            space,
        )  # fmt: skip
        known = []

        def remembered(*arguments):
            known.append(knowledge_of(*arguments))
            return known[0]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan_compression, "knowledge_of", remembered)
            plan = prepare(config, lambda text: None).plan
        return plan, known[0]

    def run(self, name, model="one", *overrides, space=SPACE):
        """Runs a study; returns its results and its knowledge."""
        plan, known = self.planned(name, model, *overrides, space=space)
        return run_study(plan, SilentObserver()).results, known


@pytest.fixture(scope="session")
def tiny():
    """The model of the first study."""
    return network(seed=0)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A folder with two finished studies, of two networks."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.run("first", "one")
    lab.run("second", "two")
    return lab


@pytest.fixture(scope="session")
def first_study(tmp_path_factory):
    """A folder in which a newcomer has run a study, with its files and MLflow's database."""
    folder = tmp_path_factory.mktemp("newcomer")
    newcomer.run(folder)
    return folder
