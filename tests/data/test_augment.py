import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from attnlab.data import augment
from attnlab.data.augment import Augmentation, look_up
from attnlab.errors import UserError


def batch(count=64, channels=3, height=8, width=10):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def shifted(image, dx, dy):
    """The image seen through a window that is moved right by dx and down by dy; black beyond."""
    moved = torch.zeros_like(image)
    height, width = image.shape[-2:]
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                moved[:, y, x] = image[:, y + dy, x + dx]
    return moved


def test_without_options_nothing_changes():
    images = batch()
    assert torch.equal(Augmentation()(images), images)
    labels = torch.arange(64)
    mixed, partners, shares = Augmentation().mix(images.float(), labels)
    assert torch.equal(mixed, images.float())
    assert torch.equal(partners, labels)
    assert (shares == 1).all()


def test_a_crop_moves_each_image_by_whole_pixels():
    torch.manual_seed(0)
    images = batch(40, 1, 6, 7)
    moved = Augmentation(crop=2)(images)
    found = set()
    for before, after in zip(images, moved, strict=True):
        offsets = [(x, y) for x in range(-2, 3) for y in range(-2, 3) if torch.equal(shifted(before, x, y), after)]
        assert len(offsets) == 1
        found |= set(offsets)
    assert len(found) > 15  # of 25


def test_a_flip_mirrors_about_half_of_the_images():
    torch.manual_seed(0)
    images = batch(200)
    flipped = Augmentation(flip=True)(images)
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(images, flipped, strict=True)]
    same = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 70 < sum(mirrored) < 130


def test_the_given_images_are_left_alone():
    images = batch()
    before = images.clone()
    changed = Augmentation(crop=2, flip=True, randaugment=3, magnitude=30)(images)
    assert torch.equal(images, before)
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (32, 32)])
def test_every_operation_takes_every_size_and_channel(channels, size):
    torch.manual_seed(0)
    images = batch(300, channels, *size)
    assert Augmentation(crop=1, randaugment=2, magnitude=30)(images).shape == images.shape


def test_the_seeded_global_state_decides():
    def drawn(seed):
        torch.manual_seed(seed)
        return Augmentation(crop=2, flip=True, randaugment=2)(batch())

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_randaugment_without_strength_only_stretches_contrast():
    """At magnitude 0 all but autocontrast and equalize leave an image as it is."""
    torch.manual_seed(0)
    images = batch()
    images[:, :, 0, 0], images[:, :, 0, 1] = 0, 255  # nothing to stretch
    assert torch.equal(Augmentation(randaugment=1, magnitude=0)(images), images)  # too few pixels to equalize


def geometric(name, strength, height=9, width=9):
    operation = torch.tensor([augment._NAMES.index(name)])
    return augment._geometric(operation, torch.tensor([strength]), height, width)


def test_geometric_operations_agree_with_their_definitions():
    assert torch.equal(geometric("identity", 1.0)[0], torch.eye(3))
    assert torch.equal(geometric("brightness", 1.0)[0], torch.eye(3))
    assert torch.equal(geometric("shear_x", -1.0)[0], torch.tensor([[1, -0.3, 0], [0, 1, 0], [0, 0, 1]]))
    assert geometric("shear_y", 0.5)[0, 1, 0].item() == pytest.approx(0.15)
    assert geometric("translate_x", 1.0, 9, 331)[0, :2, 2].tolist() == pytest.approx([150, 0])
    assert geometric("translate_y", 1.0, 331, 9)[0, :2, 2].tolist() == pytest.approx([0, 150])
    turn = geometric("rotate", 1.0)[0, :2, :2]
    assert torch.allclose(turn @ turn.T, torch.eye(2), atol=1e-6)
    assert math.degrees(math.acos(turn[0, 0])) == pytest.approx(30, abs=1e-4)


def test_a_quarter_turn_and_a_product_of_maps():
    image = batch(1, 3, 7, 7)
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    turned = look_up(image, quarter)
    assert torch.equal(turned, image.rot90(1, (-2, -1))) or torch.equal(turned, image.rot90(-1, (-2, -1)))
    assert torch.equal(look_up(turned, quarter), look_up(image, quarter @ quarter))
    assert torch.equal(look_up(image, quarter @ quarter @ quarter @ quarter), image)


def pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("name", "reference", "tolerance"),
    [
        ("brightness", lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s), 1),
        ("contrast", lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s), 2),
        ("color", lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s), 2),
        ("posterize", lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))), 0),
        ("solarize", lambda image, s: ImageOps.solarize(image, 256 * (1 - abs(s))), 0),
        ("autocontrast", lambda image, s: ImageOps.autocontrast(image), 1),
        ("equalize", lambda image, s: ImageOps.equalize(image), 0),
    ],
)
@pytest.mark.parametrize("strength", [-0.8, 0.3, 1.0])
def test_operations_on_levels_agree_with_pillow(name, reference, tolerance, strength):
    images = batch(4, 3, 32, 32) // 2 + 30
    found = augment._OPERATIONS[name](images, torch.full((4, 1, 1, 1), strength))
    for image, changed in zip(images, found, strict=True):
        expected = tensor(reference(pillow(image), strength))
        assert (expected.int() - changed.int()).abs().max() <= tolerance


def test_sharpness_agrees_with_pillow_inside():
    images = batch(2, 3, 16, 16)
    found = augment._OPERATIONS["sharpness"](images, torch.full((2, 1, 1, 1), -0.5))
    for image, changed in zip(images, found, strict=True):
        expected = tensor(ImageEnhance.Sharpness(pillow(image)).enhance(0.55))
        assert (expected.int() - changed.int())[:, 1:-1, 1:-1].abs().max() <= 1


def test_all_operations_are_drawn():
    torch.manual_seed(0)
    images = batch(1, 3, 32, 32).expand(800, -1, -1, -1)
    changed = Augmentation(randaugment=1, magnitude=15)(images).flatten(1).unique(dim=0)
    # 5 geometric and 4 blending operations with two signs each, 4 without, and the identity
    assert len(changed) == 2 * 9 + 4 + 1


def test_mixup_shares_are_of_the_beta_distribution():
    torch.manual_seed(0)
    images, labels = torch.rand(4000, 1, 1, 1), torch.arange(4000)
    mixed, partners, shares = Augmentation(mixup=0.5).mix(images, labels)
    expected = shares.view(-1, 1, 1, 1) * images + (1 - shares.view(-1, 1, 1, 1)) * images[partners]
    assert torch.allclose(mixed, expected, atol=1e-6)
    assert sorted(partners.tolist()) == labels.tolist()
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / 8, abs=0.01)  # 1 / (4 (2 a + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": -1}, "data.augment.crop=-1"),
        ({"randaugment": -2}, "data.augment.randaugment=-2"),
        ({"magnitude": 31}, "data.augment.magnitude=31 must lie between 0 and 30"),
        ({"mixup": -0.1}, "data.augment.mixup=-0.1"),
        ({"colour": 1}, "no option colour: it has crop, flip, randaugment, magnitude, mixup"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        Augmentation.from_options(options)
