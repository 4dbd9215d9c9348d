"""What the backbone's classifier says of regions: timm's whole classifier is the oracle."""

import pytest
import torch
from timm.data import ImageNetInfo

from avs_core.datasets.sources import Catalogue
from avs_core.models.backbones import build_backbone
from avs_core.models.known_names import KnownNames
from avs_core.training.initialise import lite0_classifier, load_known, load_lite0

CATEGORIES = ("dog", "crow", "ship")


@pytest.fixture(scope="module")
def known() -> KnownNames:
    names = KnownNames(320, len(CATEGORIES)).eval()
    load_known(names, CATEGORIES)
    return names


def test_under_a_mask_of_the_whole_picture_it_is_the_classifier_of_timm(known: KnownNames) -> None:
    torch.manual_seed(0)
    pictures = torch.randn(2, 3, 96, 128)
    backbone = build_backbone("tf_efficientnet_lite0").eval()
    load_lite0(backbone.body)
    whole = lite0_classifier()
    with torch.inference_mode():
        said = known.classes(backbone(pictures)[-1], torch.full((2, 1, 12, 16), 40.0))[:, 0]
        torch.testing.assert_close(said, whole(pictures), atol=1e-4, rtol=1e-3)


def test_each_mask_is_named_by_what_lies_under_it(known: KnownNames) -> None:
    torch.manual_seed(1)
    deepest = torch.randn(1, 320, 2, 4)
    halves = torch.full((1, 2, 4, 8), -40.0)
    halves[0, 0, :, :4] = halves[0, 1, :, 4:] = 40.0
    with torch.inference_mode():
        both = known.classes(deepest, halves)[0]
        left = known.classes(deepest[..., :2], torch.full((1, 1, 4, 4), 40.0))[0, 0]
    torch.testing.assert_close(both[0], left, atol=1e-4, rtol=1e-3)


def test_categories_add_up_their_classes_and_unknown_ones_share_the_rest(known: KnownNames) -> None:
    torch.manual_seed(2)
    deepest, masks = torch.randn(1, 320, 3, 3), torch.randn(1, 4, 6, 6)
    with torch.inference_mode():
        share, said = known.classes(deepest, masks).softmax(-1), known(deepest, masks)
    dog, ship = (share[..., known.table[i] > 0].sum(-1) for i in (0, 2))
    torch.testing.assert_close(said[..., 0], (dog + 1e-3).log())
    torch.testing.assert_close(said[..., 1], (0.05 * (1 - dog - ship) + 1e-3).log())


def test_an_empty_mask_gives_finite_names(known: KnownNames) -> None:
    with torch.inference_mode():
        assert bool(torch.isfinite(known(torch.randn(1, 320, 2, 2), torch.full((1, 1, 4, 4), -200.0))).all())


@pytest.mark.parametrize(
    ("category", "word"),
    [
        ("dog", "dog"),
        ("zebra", "zebra"),
        ("violin", "violin"),
        ("firetruck", "fire engine"),
        ("owl", "owl"),
        ("toilet", "toilet seat"),
        ("guitar_electric", "electric guitar"),
        ("koala", "koala"),
        ("hammer", "hammer"),
        ("hippo", "hippopotamus"),
    ],
)
def test_the_table_means_what_imagenet_means(category: str, word: str) -> None:
    names = KnownNames(320, 1)
    load_known(names, (category,))
    info = ImageNetInfo()
    meant = [info.index_to_description(int(i), detailed=True) for i in names.table[0].nonzero()]
    assert any(word in one for one in meant), meant
    if category == "dog":
        assert len(meant) > 100


def test_every_name_of_the_table_is_a_category_of_the_catalogue() -> None:
    categories = tuple(Catalogue.load().classes)
    names = KnownNames(320, len(categories))
    load_known(names, categories)
    unknown = [c for c, row in zip(categories, names.table, strict=True) if not bool(row.any())]
    assert sorted(unknown) == ["crow", "cymbal", "donkey", "fire", "rubberduck", "turkey"]
