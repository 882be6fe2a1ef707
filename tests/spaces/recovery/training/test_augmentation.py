from dataclasses import replace

import pytest
import torch

from spaces.errors import StageError
from spaces.recovery.knobs import AUGMENTATIONS as KNOWN
from spaces.recovery.knobs import AUTO
from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.training import augmentation
from spaces.recovery.training.augmentation import AUGMENTATIONS, augment, check_augmentation
from spaces.recovery.training.batch import Batch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(*shape, n=64):
    inputs = torch.randn(n, *shape, generator=generator(9))
    return Batch(inputs, torch.arange(n) % 5)


def test_the_knob_names_all_augmentations():
    assert (AUTO, *AUGMENTATIONS) == KNOWN


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(3, 8, 12), (2, 16), (2, 1, 16), (2, 16, 1), (5,)])
def test_shape_type_and_meaning_stay_and_seeds_decide(name, shape):
    batch = batch_of(*shape)
    if not AUGMENTATIONS[name].inputs.fit(shape) or (name == "flip" and shape[-1] == 1):
        return
    changed = augment(name, batch, generator(1))
    assert changed.inputs.shape == batch.inputs.shape
    assert changed.inputs.dtype == torch.float32
    assert changed.inputs.isfinite().all()
    assert torch.equal(changed.labels, batch.labels)
    assert torch.equal(changed.inputs, augment(name, batch, generator(1)).inputs)
    if name != "none":
        assert not torch.equal(changed.inputs, augment(name, batch, generator(2)).inputs)


def test_none_leaves_the_batch():
    batch = batch_of(3, 8, 8)
    assert augment("none", batch, generator()) == replace(batch)


def test_flip_mirrors_whole_images():
    inputs = batch_of(3, 4, 6, n=200).inputs
    flipped = augmentation.flip(inputs, generator())
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, inputs, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, inputs, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 70 < sum(mirrored) < 130  # 6 standard deviations around 100 are 58..142


def test_crop_moves_whole_images_and_fills_with_zeros():
    inputs = batch_of(2, 16, 24).inputs
    for moved, image in zip(augmentation.crop(inputs, generator()), inputs, strict=True):
        padded = torch.nn.functional.pad(image, (3, 3, 2, 2))
        windows = padded.unfold(1, 16, 1).unfold(2, 24, 1)  # (c, 5, 7, 16, 24)
        assert (windows == moved[:, None, None]).all(dim=(0, 3, 4)).sum() >= 1


def test_crop_reaches_every_place():
    ones = torch.zeros(2000, 1, 8, 8)
    ones[:, :, 4, 4] = 1
    places = {tuple(p.nonzero()[0].tolist()) for p in augmentation.crop(ones, generator())[:, 0]}
    assert places == {(y, x) for y in (3, 4, 5) for x in (3, 4, 5)}


@pytest.mark.parametrize("shape", [(2, 16), (2, 1, 16), (2, 16, 1)])
def test_time_shift_moves_whole_signals_and_repeats_the_end(shape):
    inputs = batch_of(*shape, n=100).inputs
    shifted = augmentation.time_shift(inputs, generator()).reshape(100, 2, 16)
    inputs = inputs.reshape(100, 2, 16)
    shifts = set()
    for moved, signal in zip(shifted, inputs, strict=True):
        padded = torch.cat([signal[:, :1].expand(2, 2), signal, signal[:, -1:].expand(2, 2)], 1)
        shifts.add(next(s for s in range(5) if torch.equal(moved, padded[:, s : s + 16])))
    assert shifts == set(range(5))


def test_scale_is_one_factor_a_channel():
    inputs = batch_of(3, 16).inputs
    factors = augmentation.scale(inputs, generator()) / inputs
    torch.testing.assert_close(factors, factors[:, :, :1].expand_as(factors))
    assert factors[:, :, 0].std() == pytest.approx(augmentation.SCALE_SPREAD, rel=0.3)


def test_jitter_is_in_proportion_to_a_channels_spread():
    inputs = batch_of(2, 64).inputs * torch.tensor([1.0, 100.0])[:, None]
    noise = augmentation.jitter(inputs, generator()) - inputs
    spread = (noise.std((0, 2)) / inputs.std((0, 2))).tolist()
    assert spread == pytest.approx([augmentation.NOISE] * 2, rel=0.1)


def test_mixup_mixes_inputs_and_labels_alike():
    n = 50
    classes = torch.arange(n)
    mixed = augment("mixup", Batch(torch.eye(n), classes), generator())
    assert mixed.partners is not None
    assert mixed.shares is not None
    shares = mixed.shares[:, None]
    wanted = shares * torch.eye(n) + (1 - shares) * torch.eye(n)[mixed.partners]
    torch.testing.assert_close(mixed.inputs, wanted)
    assert 0.3 < mixed.shares.mean() < 0.7
    logits = torch.randn(n, n, generator=generator())
    soft = torch.nn.functional.cross_entropy(logits, wanted)
    torch.testing.assert_close(LabelLoss()(logits, mixed), soft)


def test_smoothing_is_torchs():
    logits, batch = torch.randn(6, 5, generator=generator()), batch_of(1, n=6)
    wanted = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.2)
    torch.testing.assert_close(LabelLoss(0.2)(logits, batch), wanted)


@pytest.mark.parametrize(
    ("name", "shape"), [("flip_crop", (6, 128)), ("signal", (3, 8, 8)), ("time_shift", (5,))]
)
def test_inputs_that_do_not_fit_raise_and_list_applicable_augmentations(name, shape):
    with pytest.raises(
        StageError, match=rf"augmentation={name} needs .* applicable augmentations: .*mixup.*jitter"
    ):
        check_augmentation(name, shape)


def test_an_unknown_name_raises():
    with pytest.raises(StageError, match="Did you mean 'flip_crop'"):
        check_augmentation("flipcrop", (3, 8, 8))
