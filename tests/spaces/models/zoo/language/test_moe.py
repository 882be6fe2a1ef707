import numpy as np
import pytest
import torch

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.torch.experts import MixtureOfExperts, mixtures
from spaces.models.zoo.language.llama import LlamaModel
from spaces.models.zoo.language.moe import MoeModel
from spaces.stages.array_split import ArraySplit

SMALL = {
    "dim": 16,
    "ffn_dim": 24,
    "n_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 2,
    "vocabulary_size": 50,
    "max_length": 12,
    "length": 8,
}


@pytest.fixture
def context(tmp_path):
    return LoadContext(None, tmp_path)


class TestMoe(ModelSourceConformance):
    @pytest.fixture(params=[{"n_experts": 3, "top_k": 2, "expert_init": "dense"}, {"every": 2}])
    def source(self, request):
        return MoeModel(**SMALL, **request.param)


@pytest.mark.parametrize("settings", [{"n_experts": 3, "top_k": 2}, {"every": 2}, {"n_experts": 1}])
def test_without_training_it_computes_what_the_dense_network_does(context, settings):
    dense, moe = LlamaModel(**SMALL).load(context).model, MoeModel(**SMALL, **settings).load(context).model
    ids = torch.arange(16).view(2, 8)
    torch.testing.assert_close(
        moe(ids), dense(ids), rtol=1e-3, atol=1e-6
    )  # sums may depend on where weights lie in memory
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    for mixture in mixtures(moe).values():
        assert torch.equal(mixture(x), mixture.shared(x))
    theirs = dense.state_dict()
    for name, value in moe.state_dict().items():
        name = name.replace(".ffn.shared.", ".ffn.")
        assert name not in theirs or torch.equal(value, theirs[name])
    assert set(theirs) <= {name.replace(".ffn.shared.", ".ffn.") for name in moe.state_dict()}


def test_only_experts_and_routers_are_trained(context):
    moe = MoeModel(**SMALL, every=2).load(context).model
    trained = {name for name, p in moe.named_parameters() if p.requires_grad}
    assert list(mixtures(moe)) == ["blocks.1.ffn"]
    assert trained == {n for n, _ in moe.named_parameters() if ".experts." in n or ".router." in n}


def test_copies_of_the_dense_network_come_on_top(context):
    """With one expert, whose probability is 1, a block's feed-forward network counts twice."""
    moe = MoeModel(**SMALL, n_experts=1, expert_init="dense").load(context).model
    dense = LlamaModel(**SMALL).load(context).model
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moe.blocks[0].ffn(x), 2 * dense.blocks[0].ffn(x))


def test_a_mixture_adds_the_best_experts_by_their_probabilities():
    scales = (1.0, 10.0, 100.0)
    router = torch.nn.Linear(3, 3, bias=False)
    router.weight.data = torch.eye(3)
    experts = [torch.nn.Linear(3, 3, bias=False) for _ in scales]
    for expert, scale in zip(experts, scales, strict=True):
        expert.weight.data = scale * torch.eye(3)
    mixture = MixtureOfExperts(torch.nn.Identity(), experts, router, active=2)
    x = torch.tensor([[0.0, 2.0, 1.0]])
    p = torch.softmax(x[0], 0)
    torch.testing.assert_close(mixture(x), x * (1 + 10 * p[1] + 100 * p[2]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 5}, r"model\.top_k must be at most model\.n_experts=4, not 5"),
        ({"n_experts": 0}, r"model\.n_experts must be a whole number from 1 on"),
        ({"top_k": 1.5}, r"model\.top_k must be a whole number"),
        ({"expert_init": "random"}, r"Unknown initial value 'random' in model\.expert_init"),
        ({"dim": 18}, r"multiple of twice model\.n_heads"),
    ],
)
def test_impossible_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        MoeModel(**SMALL | settings)


def test_what_does_not_fit_raises(context, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.every must be at most 2, the number of blocks"):
        MoeModel(**SMALL, every=3).load(context)
    (tmp_path / "m.bin").write_bytes(b"PK\3\4" * 20)
    with pytest.raises(InputError, match=r"no \.bin checkpoint of llama2\.c"):
        MoeModel(str(tmp_path / "m.bin"), length=8).load(context)
    ids = np.full((3, 8), 50)
    with pytest.raises(InputError, match=r"token ids reach 50"):
        MoeModel(**SMALL).load(LoadContext(ArraySplit(ids, ids), tmp_path))
