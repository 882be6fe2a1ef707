from typing import ClassVar

import numpy as np
import pytest
import torch

from spaces.architectures.families.embbert import EmbBERT
from spaces.architectures.model import FamilyModel
from spaces.architectures.testing import FamilyConformance
from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.stages.array_split import ArraySplit


class TestEmbBERT(FamilyConformance):
    small: ClassVar = {"depth": 1, "width": 32}

    @pytest.fixture
    def family(self):
        return EmbBERT(vocabulary_size=64)

    @pytest.fixture
    def input_shape(self):
        return (24,)


def _network(**settings):
    torch.manual_seed(0)
    family = EmbBERT(vocabulary_size=50, **settings)
    return family.build(family.defaults() | {"depth": 2, "width": 32}, (16,), 3).eval()


def test_it_has_the_published_number_of_parameters_besides_the_head():
    family = EmbBERT()
    assert family.counts(family.defaults(), (256,), 2).parameters - (2 * 128 + 2) == 357_248


def test_the_peak_of_two_layers_is_that_counted_by_hand():
    """The softmax of the scores needs most: it makes a second square, while others wait for what follows."""
    family, n, d = EmbBERT(vocabulary_size=64), 64, 8
    values = family.defaults() | {"depth": 2, "width": d, "reduced": 4}
    mask, tokens, square, factors = n, n * d, n * n, 2  # float32 values
    assert family.counts(values, (n,), 2).peak_activation_bytes == 4 * (mask + tokens + 2 * square + factors)


def test_padding_changes_nothing():
    network = _network()
    ids = torch.randint(1, 50, (2, 16))
    ids[:, 10:] = 0
    with torch.no_grad():
        before = network(ids)
        network.embedder.token.weight[0] = 9.0
        network.embedder.segment.weight[0] = 9.0
        torch.testing.assert_close(network(ids), before)


def test_an_empty_text_has_finite_outputs():
    assert bool(torch.isfinite(_network()(torch.zeros(1, 16, dtype=torch.int64))).all())


def test_after_the_separator_tokens_are_of_the_second_segment():
    network = _network(separator=4)
    ids = torch.tensor([[7, 8, 4, 9, 0, *[0] * 11]])
    made = []
    network.embedder.segment.register_forward_pre_hook(lambda _, arguments: made.append(arguments[0]))
    network(ids)
    assert made[0][0, :5].tolist() == [1, 1, 2, 2, 0]


def test_each_token_can_be_classified():
    assert _network(per_step=True)(torch.ones(2, 16, dtype=torch.int64)).shape == (2, 16, 3)


def test_vectors_that_are_not_expanded_are_refused():
    values = EmbBERT().defaults() | {"reduced": 32, "width": 16}
    assert "reduced=32 is more than width=16" in EmbBERT().broken(values, (256,))


@pytest.mark.parametrize("arguments", [{"vocabulary_size": 0}, {"separator": 8192}])
def test_settings_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"model\.family"):
        EmbBERT(**arguments)


def test_tokens_without_a_vector_are_refused_before_the_training(tmp_path):
    split = ArraySplit(np.full((4, 16), 70), np.zeros(4, np.int64))
    model = FamilyModel(EmbBERT(vocabulary_size=64), n_classes=2, input_shape=[16])
    with pytest.raises(InputError, match=r"reach 70.*model\.family\.vocabulary_size is 64"):
        model.load(LoadContext(split, tmp_path))
