"""Pictures agree with the truth about them: the empty stage is the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from avs_core.datasets.rendering import Stage, cut_out
from avs_core.datasets.scenes import Actor, Camera, Look, Motion, Scene
from avs_core.datasets.sources import Background

SIZE = 96
STILL = Camera(share=0.9, left=0.5, low=0.0, pan_x=0.0, pan_y=0.0, zoom=0.0, shake=0.0)
PLAIN = Look(0.5, 0.2, 0.0, (1.0, 1.0, 1.0), 1.0, 0.0, 0.0, 95)


def _disc(colour: tuple[int, int, int], size: int = 120) -> np.ndarray:
    picture = Image.new("RGBA", (size + 20, size + 20))
    ImageDraw.Draw(picture).ellipse((10, 10, size + 9, size + 9), fill=(*colour, 255))
    return np.array(picture)


def _actor(place: str = "air", x: float = 0.5, y: float = 0.5, height: float = 0.4, **more: object) -> Actor:
    return Actor("disc", "any:/d.png", place, x, y, height, False, (1.0, 1.0, 1.0), Motion(), **more)


def _stage(actors: tuple[Actor, ...], camera: Camera = STILL) -> Stage:
    scene = Scene(7, Background(ref="any:/b.png", setting="land", ground=0.5), 1.0, camera, PLAIN, actors)
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(90, 120, (200, 200, 1), np.uint8), 3, axis=2)
    colours = ((240, 20, 20), (20, 240, 20), (20, 20, 240))
    return Stage(scene, grey, [cut_out(_disc(colours[i])) for i in range(len(actors))], SIZE, SIZE)


def _draw(stage: Stage, t: float = 1.0, loud: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    drawing = stage.draw(t, 5.0, [lambda _: loud] * len(stage.scene.actors), look=False)
    return drawing.picture.astype(int), drawing.coverage


def test_cutting_out_trims_and_keeps_the_shape() -> None:
    sprite = cut_out(_disc((200, 0, 0)))
    assert sprite.shape[0] == pytest.approx(124, abs=2)
    opaque = (sprite[..., 3] > 127).sum()
    assert 0.94 < opaque / (np.pi * 60**2) < 1.0, "the edge is pulled in, not out"
    assert cut_out(_disc((200, 0, 0), 1000), tallest=100).shape[0] == 104


def test_the_rim_takes_its_colour_from_the_inside() -> None:
    picture = Image.new("RGBA", (100, 100), (255, 255, 255, 0))
    ImageDraw.Draw(picture).ellipse((10, 10, 89, 89), fill=(255, 255, 255, 255))  # a white fringe …
    ImageDraw.Draw(picture).ellipse((11, 11, 88, 88), fill=(200, 0, 0, 255))  # … around a red disc
    sprite = cut_out(np.array(picture)).astype(int)
    seen = sprite[..., 3] > 127
    assert np.percentile(sprite[..., 1][seen], 99) < 90, "white would be 255"


def test_masks_are_where_the_picture_differs_from_the_empty_stage() -> None:
    empty, _ = _draw(_stage(()))
    picture, coverage = _draw(_stage((_actor(),)))
    changed = np.abs(picture - empty).max(-1)
    mask = coverage[0] > 0.5
    assert (changed[mask] > 20).all()
    assert (changed[coverage[0] == 0] == 0).all()
    assert (picture[mask][:, 0] > picture[mask][:, 1]).all(), "inside is the red of the sprite"
    assert mask.sum() == pytest.approx(np.pi * (0.2 * SIZE) ** 2, rel=0.08)


def test_what_stands_in_front_hides_what_is_behind() -> None:
    behind, front = _actor(x=0.45), _actor(x=0.6)
    picture, coverage = _draw(_stage((behind, front)))
    assert coverage.sum(0).max() <= 1.001
    _, alone = _draw(_stage((front,)))
    assert np.array_equal(coverage[1], alone[0])
    both = (coverage[1] > 0.5) & (_draw(_stage((behind,)))[1][0] > 0.5)
    assert both.sum() > 50
    assert (coverage[0][both] < 0.5).all()
    assert (picture[both].argmax(-1) == 1).all(), "the front disc is green"


def test_a_squeezed_frame_shows_the_same_scene() -> None:
    stage = _stage((_actor(),))
    wide = replace(stage.scene, aspect=2.0, actors=(replace(stage.scene.actors[0], x=1.0),))
    _, coverage = _draw(Stage(wide, np.full((200, 400, 3), 99, np.uint8), [cut_out(_disc((9, 200, 9)))], SIZE, SIZE))
    rows, columns = np.nonzero(coverage[0] > 0.5)
    assert np.ptp(rows) == pytest.approx(2 * np.ptp(columns), rel=0.1)


def test_shadows_darken_the_ground_outside_the_mask() -> None:
    empty, _ = _draw(_stage(()))
    stage = _stage((_actor("ground", y=0.8),))
    picture, coverage = _draw(stage)
    outside = coverage[0] == 0
    assert (picture[outside] <= empty[outside]).all()
    assert (picture[outside] < empty[outside] - 10).any()


def test_water_hides_the_lowest_part() -> None:
    _, dry = _draw(_stage((_actor("water", y=0.8),)))
    _, wet = _draw(_stage((_actor("water", y=0.8, sunk=0.25),)))
    assert (wet > 0.5).sum() < 0.9 * (dry > 0.5).sum()
    assert np.nonzero(wet[0] > 0.5)[0].max() <= 0.82 * SIZE


def test_tied_motion_follows_the_voice() -> None:
    stage = _stage((replace(_actor("ground", y=0.8), motion=Motion(bob=0.2, hertz=0.5, phase=1.0, tied=True)),))
    _, quiet = _draw(stage, loud=0.0)
    _, still = _draw(_stage((_actor("ground", y=0.8),)))
    _, loud = _draw(stage, loud=1.0)
    assert np.allclose(quiet, still)
    assert np.nonzero(loud[0] > 0.5)[0].max() < np.nonzero(quiet[0] > 0.5)[0].max() - 3


def test_moving_cameras_carry_the_objects_along() -> None:
    camera = replace(STILL, pan_x=0.01)
    stage = _stage((_actor(),), camera)
    _, early = _draw(stage, 0.5)
    _, late = _draw(stage, 4.5)
    assert np.nonzero(early[0])[1].mean() > np.nonzero(late[0])[1].mean() + 1


def test_objects_outside_the_frame_are_harmless() -> None:
    _, coverage = _draw(_stage((_actor(x=5.0), _actor(x=0.0), _actor(y=-4.0))))
    assert not coverage[0].any()
    assert coverage[1].any()
    assert not coverage[2].any()


def test_the_sensor_is_deterministic_and_changes_the_picture() -> None:
    stage = _stage((_actor(),))
    noisy = replace(stage.scene, look=replace(PLAIN, noise=5.0, blur=0.8, quality=50))
    drawings = [
        Stage(noisy, np.full((200, 200, 3), 99, np.uint8), [cut_out(_disc((9, 200, 9)))], SIZE, SIZE).draw(
            1.0, 5.0, [lambda _: 0.0]
        )
        for _ in range(2)
    ]
    assert np.array_equal(drawings[0].picture, drawings[1].picture)
    assert drawings[0].picture.std() > 5
