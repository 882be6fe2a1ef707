import numpy as np
import pytest

from spaces.architectures.families.convformer import ConvFormer
from spaces.architectures.families.ds_cnn import DSCNN
from spaces.architectures.families.embbert import EmbBERT
from spaces.architectures.model import FamilyModel
from spaces.errors import InputError
from spaces.models.base import LoadContext
from spaces.stages.array_split import ArraySplit

IMAGES = np.zeros((8, 1, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("model", "labels", "loss", "message"),
    [
        (FamilyModel(DSCNN(), n_classes=3, input_shape=[1, 8, 8]), np.full(8, 3), "cross_entropy", "3 outputs"),
        (FamilyModel(DSCNN(), n_classes=3, input_shape=[2, 8, 8]), np.zeros(8, np.int64), "cross_entropy", "input_shape is"),
        (FamilyModel(DSCNN(), n_classes=3, input_shape=[1, 8, 8]), np.zeros(8, np.int64), None, "no training loss"),
        (
            FamilyModel(ConvFormer(3), n_classes=1, input_shape=[1, 8, 8]),
            np.zeros((8, 1, 16, 16), np.float32),
            "absolute",
            r"yields \(1, 24, 24\)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_task_is_refused_before_the_training(tmp_path, model, labels, loss, message):
    with pytest.raises(InputError, match=message):
        model.load(LoadContext(ArraySplit(IMAGES, labels), tmp_path, loss=loss))


def test_without_examples_nothing_is_trained(tmp_path):
    with pytest.raises(InputError, match="no train split"):
        FamilyModel(DSCNN(), input_shape=[1, 8, 8]).load(LoadContext(None, tmp_path))


def test_the_input_has_the_familys_type_unless_another_is_asked_for():
    assert FamilyModel(EmbBERT(), input_shape=[16]).input.dtype == "int64"
    assert FamilyModel(EmbBERT(), input_shape=[16], input_dtype="int32").input.dtype == "int32"
    assert FamilyModel(DSCNN(), input_shape=[1, 8, 8]).input.dtype == "float32"
