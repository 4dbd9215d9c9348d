"""The picture of a scene: sprites fitted to the place's light, shadows, camera motion, sensor and compression."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy import ndimage

from avs_core.datasets.scenes import Actor, Look, Scene

_PAD = 2
_Matrix = tuple[float, float, float, float]
Envelope = Callable[[float], float]
"""Loudness in [0, 1] of an actor's voice at a time in seconds."""


@dataclass(frozen=True)
class Drawing:
    """One frame: the picture (H, W, 3) and how much of each actor is seen (A, H, W) in [0, 1]."""

    picture: UInt8[np.ndarray, "H W 3"]
    coverage: Float32[np.ndarray, "A H W"]


def cut_out(picture: UInt8[np.ndarray, "H W 4"], tallest: int = 512) -> UInt8[np.ndarray, "h w 4"]:
    """Trim to what is opaque, reduce to `tallest` pixels, soften the edge and pull it in by half a pixel.

    The rim of a cut-out shows its old background, so its colours are spread from the inside.
    """
    image = Image.fromarray(picture)
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox())
    image.thumbnail((2 * tallest, tallest), Image.Resampling.LANCZOS)
    pixels = np.pad(np.asarray(image, np.float32), ((_PAD, _PAD), (_PAD, _PAD), (0, 0)))
    colour, alpha = pixels[..., :3], pixels[..., 3] / 255
    soft = ndimage.gaussian_filter(alpha, 0.7)
    inner = np.clip((soft - 0.8) / 0.15, 0, 1)[..., None]
    weight = ndimage.gaussian_filter(inner, (2, 2, 0))
    spread = ndimage.gaussian_filter(colour * inner, (2, 2, 0)) / np.maximum(weight, 1e-4)
    colour = np.where(weight > 1e-3, inner * colour + (1 - inner) * spread, colour)
    pulled = np.clip((soft - 0.4) / 0.5, 0, 1)
    return np.dstack([np.clip(colour, 0, 255), 255 * pulled]).astype(np.uint8)


class Stage:
    """A scene prepared at one output size: `draw(t)` gives the frame at time t.

    `background` is the photograph, `sprites` the result of `cut_out` for each actor, in the scene's order.
    """

    def __init__(
        self,
        scene: Scene,
        background: UInt8[np.ndarray, "H W 3"],
        sprites: list[UInt8[np.ndarray, "_ _ 4"]],
        height: int,
        width: int,
    ) -> None:
        self.scene, self.height, self.width = scene, height, width
        self._photo = Image.fromarray(background)
        self._box = _crop_box(scene, self._photo.width, self._photo.height)
        backdrop = np.asarray(self._backdrop(0.5, 0.5, 1.0), np.float32)
        self._figures = [
            _Figure(actor, sprite, scene.aspect, height, width, backdrop)
            for actor, sprite in zip(scene.actors, sprites, strict=True)
        ]

    def draw(self, t: float, seconds: float, envelopes: list[Envelope], look: bool = True) -> Drawing:
        """The frame at time `t` of a clip of `seconds`; `envelopes` has one entry an actor."""
        x, y, zoom = _camera_at(self.scene, t, seconds)
        canvas = np.asarray(self._backdrop(x, y, zoom), np.float32).copy()
        coverage = np.zeros((len(self._figures), self.height, self.width), np.float32)
        view = _View(x * self.scene.aspect, y, zoom * self.width / self.scene.aspect, zoom * self.height)
        for index, (figure, envelope) in enumerate(zip(self._figures, envelopes, strict=True)):
            figure.cast_shadow(canvas, view, self.scene.look, t, seconds, envelope)
            figure.paint(canvas, coverage, index, view, t, seconds, envelope)
        if look:
            return Drawing(_seen_by_sensor(canvas, self.scene, t), coverage)
        return Drawing(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), coverage)

    def _backdrop(self, x: float, y: float, zoom: float) -> Image.Image:
        """The part of the photograph seen by a camera at (x, y) (shares of the frame), squeezed to the output."""
        left, top, wide, tall = self._box
        cx, cy = left + x * wide, top + y * tall
        half_w, half_h = wide / zoom / 2, tall / zoom / 2
        box = (
            max(0.0, cx - half_w),
            max(0.0, cy - half_h),
            min(float(self._photo.width), cx + half_w),
            min(float(self._photo.height), cy + half_h),
        )
        return self._photo.resize((self.width, self.height), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


@dataclass(frozen=True)
class _View:
    """Camera centre in scene units and pixels a scene unit, across and down."""

    x: float
    y: float
    across: float
    down: float


class _Figure:
    """One actor's sprite, reduced to about its final size and fitted to the light around it."""

    def __init__(
        self,
        actor: Actor,
        sprite: UInt8[np.ndarray, "h w 4"],
        aspect: float,
        height: int,
        width: int,
        backdrop: Float32[np.ndarray, "H W 3"],
    ) -> None:
        self.actor, self.height, self.width = actor, height, width
        pixels = np.ascontiguousarray(sprite[:, ::-1]) if actor.flip else sprite
        tall = actor.height * height
        wide = actor.height * (pixels.shape[1] / pixels.shape[0]) * width / aspect
        size = (max(4, math.ceil(wide)), max(4, math.ceil(tall)))
        image = Image.fromarray(_premultiplied(pixels)).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        self.across, self.down = image.width / wide * width / aspect, image.height / tall * height
        self._sole = _PAD * image.height / pixels.shape[0]
        rgba = np.asarray(image, np.float32)
        if actor.sunk:
            rgba = _sunk(rgba, actor.sunk)
        self._image = Image.fromarray(np.clip(_fitted(rgba, actor, backdrop, aspect), 0, 255).astype(np.uint8))
        self._feet = _feet(rgba[..., 3])

    def paint(
        self,
        canvas: Float32[np.ndarray, "H W 3"],
        coverage: Float32[np.ndarray, "A H W"],
        index: int,
        view: _View,
        t: float,
        seconds: float,
        envelope: Envelope,
    ) -> None:
        """Lay the sprite over the canvas and hide what lies behind it."""
        x, y, angle, stretch = _pose(self.actor, t, seconds, envelope)
        matrix = (
            math.cos(angle) / stretch,
            -math.sin(angle) * stretch,
            math.sin(angle) / stretch,
            math.cos(angle) * stretch,
        )
        placed = self._placed(self._image, view, x, y, matrix)
        if placed is None:
            return
        rows, cols, patch = placed
        alpha = patch[..., 3:] / 255
        canvas[rows, cols] = canvas[rows, cols] * (1 - alpha) + patch[..., :3]
        coverage[:index, rows, cols] *= 1 - alpha[..., 0]
        coverage[index, rows, cols] = alpha[..., 0]

    def cast_shadow(
        self,
        canvas: Float32[np.ndarray, "H W 3"],
        view: _View,
        look: Look,
        t: float,
        seconds: float,
        envelope: Envelope,
    ) -> None:
        """Darken the ground: softly where the feet touch it, and along the sun's direction."""
        if self.actor.place not in ("ground", "water"):
            return
        x, y, _, _ = _pose(self.actor, t, seconds, envelope)
        self._contact(canvas, view, x, min(self.actor.y, y + 0.01))
        if look.shadow and self.actor.place == "ground":
            placed = self._placed(self._image, view, x, y, (1.0, look.shear * look.squash, 0.0, look.squash))
            if placed is not None:
                rows, cols, patch = placed
                soft = ndimage.gaussian_filter(patch[..., 3], 1.0 + 0.008 * self.height) / 255
                canvas[rows, cols] *= 1 - look.shadow * soft[..., None]

    def _contact(self, canvas: Float32[np.ndarray, "H W 3"], view: _View, x: float, y: float) -> None:
        middle, spread = self._feet
        scale = self.actor.height
        cx = (x + middle * scale - view.x) * view.across + self.width / 2
        cy = (y - 0.012 * scale - view.y) * view.down + self.height / 2
        rx, ry = max(2.0, (spread + 0.05) * scale * view.across), max(1.2, 0.035 * scale * view.down)
        rows = slice(max(0, int(cy - 3 * ry)), max(0, int(cy + 3 * ry) + 1))
        cols = slice(max(0, int(cx - 1.6 * rx)), max(0, int(cx + 1.6 * rx) + 1))
        yy, xx = np.ogrid[rows, cols]
        patch = canvas[rows, cols]
        yy, xx = yy[: patch.shape[0]], xx[:, : patch.shape[1]]
        dark = np.exp(-(((yy - cy) / ry) ** 2) - ((xx - cx) / rx) ** 4)
        canvas[rows, cols] = patch * (1 - 0.5 * dark[..., None])

    def _placed(
        self, image: Image.Image, view: _View, x: float, y: float, matrix: _Matrix
    ) -> tuple[slice, slice, Float32[np.ndarray, "h w 4"]] | None:
        """The sprite under a 2 × 2 matrix about its anchor at (x, y): rows, columns and pixels; None if outside.

        The anchor is the middle of the foot, in the air the middle of the sprite.
        """
        a, b, c, d = matrix
        anchor = image.height / 2 if self.actor.place == "air" else image.height - self._sole
        corners = [
            ((u - image.width / 2) / self.across, (v - anchor) / self.down)
            for u in (0, image.width)
            for v in (0, image.height)
        ]
        columns = [(x + a * u + b * v - view.x) * view.across + self.width / 2 for u, v in corners]
        lines = [(y + c * u + d * v - view.y) * view.down + self.height / 2 for u, v in corners]
        left, right = max(0, math.floor(min(columns)) - 3), min(self.width, math.ceil(max(columns)) + 3)
        top, bottom = max(0, math.floor(min(lines)) - 3), min(self.height, math.ceil(max(lines)) + 3)
        if left >= right or top >= bottom:
            return None
        det = a * d - b * c
        ia, ib, ic, id_ = d / det, -b / det, -c / det, a / det
        x0 = (left - self.width / 2) / view.across + view.x - x
        y0 = (top - self.height / 2) / view.down + view.y - y
        inverse = (
            ia / view.across * self.across,
            ib / view.down * self.across,
            (ia * x0 + ib * y0) * self.across + image.width / 2,
            ic / view.across * self.down,
            id_ / view.down * self.down,
            (ic * x0 + id_ * y0) * self.down + anchor,
        )
        patch = image.transform(
            (right - left, bottom - top), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
        )
        return slice(top, bottom), slice(left, right), np.asarray(patch, np.float32)


def _premultiplied(pixels: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 4"]:
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.dstack([np.rint(pixels[..., :3] * alpha), pixels[..., 3:]]).astype(np.uint8)


def _sunk(rgba: Float32[np.ndarray, "h w 4"], share: float) -> Float32[np.ndarray, "h w 4"]:
    """Hide the lowest part, as water does, with a soft waterline; the picture's foot becomes the waterline."""
    line = round(rgba.shape[0] * (1 - share))
    fade = np.clip((line - np.arange(rgba.shape[0])) / max(2.0, 0.03 * rgba.shape[0]), 0, 1)
    faded = rgba * fade[:, None, None].astype(np.float32)
    return np.roll(faded, rgba.shape[0] - line, axis=0)


def _fitted(
    rgba: Float32[np.ndarray, "h w 4"], actor: Actor, backdrop: Float32[np.ndarray, "H W 3"], aspect: float
) -> Float32[np.ndarray, "h w 4"]:
    """Move the (premultiplied) sprite a third of the way to the light and contrast of the place behind it."""
    high, wide = backdrop.shape[:2]
    half = 0.6 * actor.height
    rows = slice(max(0, int((actor.y - 2 * half) * high)), max(1, min(high, int((actor.y + 0.1) * high))))
    cols = slice(
        max(0, min(wide - 1, int((actor.x - half) / aspect * wide))),
        max(1, min(wide, int((actor.x + half) / aspect * wide) + 1)),
    )
    there = backdrop[rows, cols].reshape(-1, 3)
    weight = rgba[..., 3:] / 255
    mass = max(float(weight.sum()), 1.0)
    mean = rgba[..., :3].sum((0, 1)) / mass
    light = float(np.clip((there.mean() + 12) / (mean.mean() + 12), 0.5, 1.7)) ** 0.35
    cast = np.clip((backdrop.mean((0, 1)) + 20) / (backdrop.mean() + 20), 0.8, 1.25) ** 0.5
    gains = light * cast * np.asarray(actor.gains)
    shade = np.linspace(1.04, 0.9, rgba.shape[0])[:, None, None]
    colour = np.minimum(rgba[..., :3] * gains * shade, 255 * weight)
    return np.dstack([colour, rgba[..., 3:]]).astype(np.float32)


def _feet(alpha: Float32[np.ndarray, "h w"]) -> tuple[float, float]:
    """(middle relative to the sprite's middle, half width) of what touches the ground, in sprite heights."""
    low = alpha[int(alpha.shape[0] * 0.9) :].max(0) > 128
    columns = np.flatnonzero(low)
    if not columns.size:
        return 0.0, 0.2
    first, last = columns[0], columns[-1] + 1
    return ((first + last) / 2 - alpha.shape[1] / 2) / alpha.shape[0], (last - first) / 2 / alpha.shape[0]


def _pose(actor: Actor, t: float, seconds: float, envelope: Envelope) -> tuple[float, float, float, float]:
    """(x, y, angle, stretch) at time t; a tied motion follows the voice."""
    motion = actor.motion
    strength = min(1.0, 1.6 * envelope(t)) if motion.tied else 1.0
    wave = math.sin(2 * math.pi * motion.hertz * t + motion.phase)
    x = actor.x + motion.drift_x * (t - seconds / 2)
    y = actor.y + motion.drift_y * (t - seconds / 2)
    if actor.place == "air":
        y += 0.5 * motion.bob * actor.height * strength * wave
    else:
        y -= motion.bob * actor.height * strength * abs(wave) * (actor.place != "border")
    return x, y, motion.sway * strength * wave, 1 + 0.4 * motion.bob * strength * wave


def _camera_at(scene: Scene, t: float, seconds: float) -> tuple[float, float, float]:
    """(x, y, zoom): where the camera looks, as shares of the frame; a hand shakes smoothly."""
    camera, rest = scene.camera, t - seconds / 2
    shake_x = camera.shake * (math.sin(5.1 * t + scene.seed % 7) + math.sin(11.3 * t))
    shake_y = camera.shake * (math.sin(6.7 * t + scene.seed % 5) + math.sin(9.1 * t))
    zoom = max(1.0, 1.03 + camera.zoom * rest)
    slack = (1 - 1 / zoom) / 2
    reach_x, reach_y = slack + 0.02, slack + 0.01
    x = 0.5 + min(max(camera.pan_x * rest + shake_x, -reach_x), reach_x)
    y = 0.5 + min(max(camera.pan_y * rest + shake_y, -reach_y), reach_y)
    return x, y, zoom


def _crop_box(scene: Scene, width: int, height: int) -> tuple[float, float, float, float]:
    """(left, top, width, height) in pixels of the part of the photograph that is the frame."""
    camera = scene.camera
    tall = min(camera.share * height, 0.94 * width / scene.aspect)
    wide = tall * scene.aspect
    left = 0.02 * width + camera.left * max(0.0, 0.96 * width - wide)
    return left, height - tall - min(camera.low * height, height - tall), wide, tall


def _seen_by_sensor(canvas: Float32[np.ndarray, "H W 3"], scene: Scene, t: float) -> UInt8[np.ndarray, "H W 3"]:
    """White balance, gamma, blur, noise (more in the dark) and JPEG blocks."""
    look = scene.look
    rng = np.random.default_rng([scene.seed, round(t * 1e6)])
    seen = 255 * (np.clip(canvas * np.asarray(look.gains, np.float32), 0, 255) / 255) ** look.gamma
    if look.blur > 0.15:
        seen = ndimage.gaussian_filter(seen, (look.blur, look.blur, 0))
    grain = rng.standard_normal(seen.shape[:2], np.float32)[..., None] + 0.4 * rng.standard_normal(
        seen.shape, np.float32
    )
    seen = seen + look.noise * (1.1 - seen / 400) * grain
    image = Image.fromarray(np.clip(np.rint(seen), 0, 255).astype(np.uint8))
    if look.quality >= 90:
        return np.array(image)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=look.quality)
    return np.array(Image.open(buffer))
