import pytest

from spaces.architectures.families.ds_cnn import DSCNN
from spaces.architectures.testing import FamilyConformance


class TestDSCNNOfImages(FamilyConformance):
    @pytest.fixture
    def family(self):
        return DSCNN()

    @pytest.fixture
    def value_sets(self):
        return [{"halvings": 2}]


class TestDSCNNOfSignals(TestDSCNNOfImages):
    @pytest.fixture
    def input_shape(self):
        return (6, 64)


def test_keyword_spotting_reference_has_the_published_number_of_parameters():
    """MLPerf Tiny's DS-CNN on 49 x 10 has 64 channels and 4 blocks; its first kernel is 10 x 4 there."""
    values = DSCNN().defaults() | {"stem_kernel": 3}
    stem, blocks, head = 9 * 64 + 128, 4 * (9 * 64 + 128 + 64 * 64 + 128), 64 * 12 + 12
    assert DSCNN().counts(values, (1, 49, 10), 12).parameters == stem + blocks + head
