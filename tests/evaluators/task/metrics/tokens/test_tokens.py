import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional

from evaluators.task.metrics.tokens.divergence import Divergence
from evaluators.task.metrics.tokens.next_token import NextToken
from evaluators.task.metrics.tokens.perplexity import Perplexity
from evaluators.task.statistics.scores import statistics_of, value_of

rng = np.random.default_rng(0)
LOGITS = (3 * rng.standard_normal((30, 6, 11))).astype(np.float32)
TOKENS = rng.integers(0, 11, (30, 6))
TOKENS[rng.random((30, 6)) < 0.2] = -1
TOKENS[:, 0] = 3


@pytest.mark.parametrize("metric", [Perplexity(), NextToken()])
def test_integer_weights_equal_repeated_examples(metric):
    weights = rng.integers(0, 4, 30)
    statistics = metric.statistics(LOGITS, TOKENS)
    repeated = np.repeat(statistics, weights, axis=0)
    assert metric.pooled(statistics, weights.astype(float)) == pytest.approx(
        metric.pooled(repeated, np.ones(len(repeated)))
    )


def test_perplexity_equals_independent_computations():
    counted = TOKENS >= 0
    shares = torch.softmax(torch.from_numpy(LOGITS[counted]).double(), 1).numpy()
    nats = log_loss(TOKENS[counted], shares, labels=np.arange(11))
    found = value_of(Perplexity(), Perplexity().statistics(LOGITS, TOKENS))
    assert found == pytest.approx(np.exp(nats), rel=1e-6)
    flat = torch.from_numpy(LOGITS.reshape(-1, 11)).double(), torch.from_numpy(TOKENS.reshape(-1))
    assert found == pytest.approx(float(functional.cross_entropy(*flat, ignore_index=-1).exp()), rel=1e-6)


def test_perplexity_of_weighted_examples_equals_scikit_learns():
    weights = rng.integers(0, 4, 30).astype(float)
    counted = TOKENS >= 0
    shares = torch.softmax(torch.from_numpy(LOGITS[counted]).double(), 1).numpy()
    each = np.broadcast_to(weights[:, None], TOKENS.shape)[counted]
    nats = log_loss(TOKENS[counted], shares, sample_weight=each, labels=np.arange(11))
    assert Perplexity().pooled(Perplexity().statistics(LOGITS, TOKENS), weights) == pytest.approx(
        np.exp(nats), rel=1e-6
    )


def test_large_logits_give_finite_values():
    logits = np.zeros((2, 3, 4), np.float32)
    logits[..., 0] = 1e4
    assert value_of(Perplexity(), Perplexity().statistics(logits, np.zeros((2, 3), int))) == 1
    assert np.isfinite(value_of(Perplexity(), Perplexity().statistics(logits, np.ones((2, 3), int))))


def test_the_share_of_next_tokens():
    counted = TOKENS >= 0
    wanted = 100 * (LOGITS[counted].argmax(1) == TOKENS[counted]).mean()
    assert value_of(NextToken(), NextToken().statistics(LOGITS, TOKENS)) == pytest.approx(wanted)


def test_divergence_equals_torchs_and_is_zero_for_equal_models():
    others = LOGITS + rng.normal(0, 1, LOGITS.shape).astype(np.float32)
    one, other = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (LOGITS, others))
    wanted = functional.kl_div(one, other, reduction="none", log_target=True).sum(-1).mean(1).numpy()
    np.testing.assert_allclose(Divergence().per_example(LOGITS, others), wanted, rtol=1e-6)
    assert statistics_of(Divergence(), LOGITS, LOGITS).tolist() == [0.0] * 30
    assert (wanted > 0).all()
