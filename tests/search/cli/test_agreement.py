"""Whether the seeds of a sweep agree."""

from pathlib import Path

import pytest

from search.cli.agreement import agreement
from search.cli.fleet import Shipped, fleet
from search.record.results import BASELINE

KNOBS = {"bits": 8, "ratio": 0.5}


def pick(seed, top1=90.0, latency=1.0, knobs=KNOBS, number=3, device="board", width=2.0, **settings):
    values = {"top1": 50.0, "test_top1": top1, "latency_ms": latency}
    ends = {"test_top1_low": top1 - width, "test_top1_high": top1 + width} if width else {}
    return Shipped(
        folder=Path(f"study-{seed}"), settings={**settings, "seed": str(seed)}, sampler="tpe", device=device,
        values={} if number is None else values | ends, baseline={"top1": 96.0, "test_top1": 95.0, "latency_ms": 3.0}, number=number,
        knobs=knobs, units={"test_top1": "%"},
    )  # fmt: skip


def told(*picks):
    (sentence,) = agreement(fleet(picks))
    return sentence


def test_picks_that_cannot_be_told_apart_tie():
    assert told(pick(0), pick(1, top1=92.8, latency=1.029)) == (
        "board: the picks of 2 seeds tie: test top1 90.00 % to 92.80 % and latency 1 ms to 1.03 ms. Their knobs are equal."
    )


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (pick(1, top1=92.9), "differ in test top1, 90.00 % (seed 0) to 92.90 % (seed 1)."),
        (pick(1, latency=1.04), "differ in latency, 1 ms (seed 0) to 1.04 ms (seed 1)."),
        (pick(1, top1=87.2, latency=0.5), "differ in latency, 0.5 ms (seed 1) to 1 ms (seed 0)."),
        (pick(1, top1=87.1, latency=2.0), "differ in test top1, 87.10 % (seed 1) to 90.00 % (seed 0) and latency, 1"),
    ],
)  # fmt: skip
def test_what_differs_by_more_is_told_with_its_seeds(other, text):
    assert text in told(pick(0), other)


def test_a_metric_without_intervals_ties_within_three_per_cent():
    assert "tie" in told(pick(0, width=0), pick(1, top1=92.6, width=0))
    assert "differ" in told(pick(0, width=0), pick(1, top1=93.0, width=0))


def test_knobs_that_are_shared_and_those_that_differ_are_told():
    shared = {"bits": 8, "fold": True, "keep": ["a"]}
    sentence = told(pick(0, knobs=shared | {"ratio": 0.5}), pick(1, knobs=shared | {"ratio": 0.25}))
    assert sentence.endswith('All have bits=8, fold=true and keep=["a"]; they differ in ratio.')
    assert told(pick(0), pick(1, knobs={"bits": 4, "ratio": 0.25})).endswith(
        ". They differ in bits and ratio."
    )


def test_of_many_knobs_the_first_are_named():
    many = {f"layer{i}": 8 for i in range(40)}
    sentence = told(pick(0, knobs=many), pick(1, knobs=many | {"layer3": 4}))
    assert "layer9=8, layer10=8 and 29 more; they differ in layer3." in sentence


def test_a_kept_float_model_is_told():
    sentence = told(pick(0, knobs={}, number=BASELINE), pick(1))
    assert sentence.endswith("The float model is kept by seed 0.")


def test_studies_that_ship_nothing_and_single_seeds_have_no_sentence():
    assert agreement(fleet([pick(0)])) == []
    assert agreement(fleet([pick(0), pick(1, number=None)])) == []
    assert agreement(fleet([pick(0, model="a"), pick(0, model="b")])) == []


def test_each_setting_and_device_has_a_sentence_until_they_are_many():
    few = agreement(fleet([pick(seed, model=model) for model in "ab" for seed in (0, 1)]))
    assert [sentence.partition(":")[0] for sentence in few] == ["model=a, board", "model=b, board"]
    many = [
        pick(seed, top1=90 + 9 * seed * (model == "a"), model=model)
        for model in "abcdefgh"
        for seed in (0, 1)
    ]
    assert agreement(fleet(many)) == [
        "In 7 of 8 lines the picks of the seeds tie, in the others they differ."
    ]
