"""Detectors from the config to the front: quality is what pycocotools says of exported detections."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = Path(__file__).parents[2]
SHORT = (
    "study.n_trials=2", "sampler=random", "knowledge=none", "device=stm32h743_tflm", "evaluator=[accuracy,cost]",
    "objective=accuracy_size", "objective.constraints.drop.max=100",
)  # fmt: skip
NETS = """
import torch
from torch import nn


class Quadrants(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)
        boxes = [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]]
        self.register_buffer("boxes", torch.tensor(boxes, dtype=torch.float32) + 0.7)

    def forward(self, x):
        x = self.conv(x)
        scores = torch.sigmoid(x.amax(1).flatten(1))
        nothing = 0 * scores[..., None]
        return {"scores": scores, "classes": x.argmax(1).flatten(1), "boxes": self.boxes + nothing}
"""


def stats_of(truth, found):
    """Returns pycocotools' mAP and mAP at 0.5, per cent."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[:2]


def write_squares(folder, n=60):
    """Writes images of 32 x 16 pixels, each with a square of one of three colours per quadrant or none."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    truth = {"images": [], "annotations": [], "categories": [{"id": k} for k in (2, 5, 9)]}
    for i in range(n):
        pixels = rng.integers(0, 60, (16, 32, 3), np.uint8)
        truth["images"].append({"id": i, "file_name": f"{i}.png", "width": 32, "height": 16})
        for x, y in ((0, 0), (16, 0), (0, 8), (16, 8)):
            k = rng.integers(0, 5)
            if k < 3:
                pixels[y : y + 8, x : x + 16, k] = 250
                truth["annotations"].append(
                    {"id": len(truth["annotations"]) + 1, "image_id": i, "category_id": (2, 5, 9)[k], "iscrowd": 0,
                     "bbox": [x, y, 16, 8], "area": 128}
                )  # fmt: skip
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    (folder / "annotations.json").write_text(json.dumps(truth))
    return truth


@pytest.fixture
def squares(tmp_path, monkeypatch):
    (tmp_path / "box_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    import box_nets

    network = box_nets.Quadrants()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.conv.weight.copy_(0.02 * torch.randn(network.conv.weight.shape))
        for k in range(3):
            network.conv.weight[k, k] += 0.1
        network.conv.bias[:] = -3
    torch.save(network.state_dict(), tmp_path / "net.pt")
    return write_squares(tmp_path)


def test_three_outputs_and_a_coco_folder(paredown, squares, tmp_path):
    ran = paredown(
        "model=torch", "model.cls=box_nets.Quadrants", "model.checkpoint=net.pt", "trusted_modules=[box_nets]",
        "model.input_shape=[3,16,16]", "task=detection", f"task.root={tmp_path}", "task.data.size=[16,16]",
        "task.data.resize=stretch", "task/decoder=decoded", "task.decoder.boxes=boxes", "task.decoder.scores=scores",
        "task.decoder.classes=classes", *SHORT, "study.name=squares", "study.report=false",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    summary = json.loads((tmp_path / "outputs/squares/summary.json").read_text())
    rows = pd.read_csv(tmp_path / "outputs/squares/trials.csv")
    assert set(rows["state"]) == {"complete"}
    assert rows["metric.agreement"].between(1, 100).all()

    # all images, with boxes in pixels of the images: independent of splits only if all of them are validated
    from evaluators.task.boxes.decoded import DecodedBoxes
    from evaluators.task.data.boxes.coco import CocoData
    from evaluators.task.tasks.detection import DetectionTask

    task = DetectionTask(
        CocoData(tmp_path / "own", [16, 16], resize="stretch"),
        DecodedBoxes("boxes", "scores", "classes"), root=str(tmp_path),
    )  # fmt: skip
    validation = task.splits().validation
    ((inputs, _),) = validation.batches(100)
    everything = task._examples
    chosen = [
        next(i for i in range(60) if (everything.split.raw[i : i + 1] == image).all())
        for image in validation.raw[:]
    ]
    path = next(p for p in sorted((tmp_path / "outputs/squares/models").iterdir()))
    session = onnxruntime.InferenceSession(path)
    outputs = dict(
        zip(
            [o.name for o in session.get_outputs()],
            session.run(None, {session.get_inputs()[0].name: inputs}),
            strict=True,
        )
    )
    found = [
        {"image_id": chosen[i], "category_id": (2, 5, 9)[int(k)], "score": float(score),
         "bbox": [2 * x1, y1, 2 * (x2 - x1), y2 - y1]}
        for i in range(len(chosen))
        for (x1, y1, x2, y2), score, k in zip(
            outputs["boxes"][i].astype(float), outputs["scores"][i], outputs["classes"][i], strict=True
        )
        if k < 3 and score >= 0.001
    ]  # fmt: skip
    truth = {
        "images": [squares["images"][i] for i in chosen],
        "annotations": [a for a in squares["annotations"] if a["image_id"] in chosen],
        "categories": squares["categories"],
    }
    row = rows[rows["number"] == int(re.findall(r"\d+", path.name)[0])].iloc[0]
    assert [row["metric.map"], row["metric.map50"]] == pytest.approx(stats_of(truth, found), abs=1e-6)
    assert row["metric.map"] > 20
    assert summary["baseline"]["metrics"]["map50"] > 50


def test_a_decoder_of_ones_own_by_the_readme(paredown, tmp_path, monkeypatch):
    text = (ROOT / "evaluators/task/boxes/README.md").read_text()
    for kind, block in re.findall(r"```(python|yaml)\n(.*?)```", text, re.DOTALL):
        assert kind in ("python", "yaml")
        path = tmp_path / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    (tmp_path / "my_plugins/own_grid.py").write_text(
        "import numpy as np\nfrom evaluators.task.boxes.grid import GridHead\nfrom my_plugins.my_decoder import MyDecoder\n\n\n"
        "class OwnGrid(MyDecoder):\n    def decode(self, outputs):\n        found = GridHead().decode(outputs)\n"
        "        rows = np.zeros((len(found), 100, 6))\n        for row, f in zip(rows, found, strict=True):\n"
        "            row[:len(f), :2], row[:len(f), 2:4] = (f.boxes[:, :2] + f.boxes[:, 2:]) / 2, f.boxes[:, 2:] - f.boxes[:, :2]\n"
        "            row[:len(f), 4], row[:len(f), 5] = f.scores, f.classes\n"
        "        return super().decode({'rows': rows})\n"
    )
    (tmp_path / "conf_dir/task/decoder/my_decoder.yaml").write_text(
        "_target_: my_plugins.own_grid.OwnGrid\niou: 0.4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ran = paredown(
        f"--config-dir={tmp_path / 'conf_dir'}", "experiment=digit_detection", "task/decoder=my_decoder",
        "trusted_modules=[my_plugins]", "model.epochs=3", "task.data.train=300", "task.data.validation=60",
        "task.data.calibration=20", "task.data.test=20", *SHORT,
    )  # fmt: skip
    assert ran.status == 0, ran.err
    folder = tmp_path / "outputs/digit_detection"
    rows = pd.read_csv(folder / "trials.csv")
    assert set(rows["state"]) == {"complete"}
    for column in ("map", "map50", "map_drop", "agreement"):  # without bounds, since all boxes are right
        assert np.isfinite(rows[f"metric.{column}"]).all()
    assert "map50" in (folder / "report.html").read_text()
