"""The world of the synthetic clips: what moves, what only looks as if it might, and how it is drawn.

A still smooth background; two still objects; one to three objects of the same sizes, shapes and textures that all move
the same way. The direction is the class. Texture says nothing about motion, so a model that picks out whatever is hard
to reconstruct in a single frame picks the still objects as well. Lengths are in frame sides; the world is a torus.
"""

from typing import NamedTuple

import numpy as np

DIRECTIONS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
TEXTURES = ("stripes", "checks", "rings", "dots")
STILL_OBJECTS = 2
MOVING_OBJECTS = (.65, .30, .05)       # chance of 1, 2, 3: as many tokens move as show still texture, about .19 each
RADIUS = (.13, .175)
SPEED = (.06, .09)                     # a frame; at half of it 1024 labelled clips do not tell directions apart
_WAVES = 3
ABSENT, STILL, MOVING = 0, 1, 2


class World(NamedTuple):
    """What makes it easy or hard.

    Fields:
        jitter: the camera's shake, in sides of the frame.
        object_scale: size of the objects in RADIUS; at 1 one token in five moves, at .6 one in twelve.
        texture_scale: period of the textures; at 1 they have .8 to 1.3 cycles in a radius, at 4 they are nearly plain.
        speed_scale: of the moving objects, in SPEED.
    """

    jitter: float = 0.
    object_scale: float = 1.
    texture_scale: float = 1.
    speed_scale: float = 1.


DEFAULT_WORLD = World()


class Scene(NamedTuple):
    """One clip, or with a leading axis many.

    Fields:
        direction: index into DIRECTIONS, the label.
        texture: index into TEXTURES, shared by all objects of the clip, independent of the direction.
        velocity: (2,) x and y a frame.
        jitter: (2, 3) for x and y: amplitude, cycles a frame, phase of the camera's shake.
        background: (3 channels, waves, 4) amplitude, cycles along x and y, phase.
        kind: (objects,) ABSENT, STILL or MOVING; the moving ones are in front.
        place: (objects, 4) centre x and y at frame 0, radius, angle.
        look: (objects, 8) roundness (1 disc, 0 square), cycles in a radius, first colour, second colour.
    """

    direction: np.ndarray
    texture: np.ndarray
    velocity: np.ndarray
    jitter: np.ndarray
    background: np.ndarray
    kind: np.ndarray
    place: np.ndarray
    look: np.ndarray


def draw_scene(rng: np.random.Generator, direction: int, texture: int, world: World = DEFAULT_WORLD) -> Scene:
    """A random scene of a direction and a texture."""
    most = len(MOVING_OBJECTS)
    objects = STILL_OBJECTS + most
    angle = np.pi / 4 * direction
    moving = 1 + rng.choice(most, p=MOVING_OBJECTS)
    kind = np.array([STILL] * STILL_OBJECTS + [MOVING] * moving + [ABSENT] * (most - moving))
    first = rng.random((objects, 3))
    waves = np.stack([rng.uniform(.03, .1, (3, _WAVES)), *rng.uniform(-1, 1, (2, 3, _WAVES)),
                      rng.uniform(0, 2 * np.pi, (3, _WAVES))], axis=-1)
    return Scene(
        direction=np.array(direction), texture=np.array(texture),
        velocity=world.speed_scale * rng.uniform(*SPEED) * np.array([np.cos(angle), np.sin(angle)]),
        jitter=np.stack([np.full(2, world.jitter), rng.uniform(.05, .2, 2), rng.uniform(0, 2 * np.pi, 2)], axis=-1),
        background=waves, kind=kind,
        place=np.column_stack([_spread_centers(rng, objects), world.object_scale * rng.uniform(*RADIUS, objects),
                               rng.uniform(0, np.pi, objects)]),
        look=np.column_stack([rng.integers(0, 2, objects), rng.uniform(.8, 1.3, objects) / world.texture_scale,
                              first, (first + rng.uniform(.4, .6, (objects, 3))) % 1]))


def _spread_centers(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 2) centres that keep off each other at frame 0: the best of a few draws for each."""
    centers = rng.random((1, 2))
    while len(centers) < count:
        tries = rng.random((8, 2))
        gaps = np.linalg.norm(_wrapped(tries[:, None] - centers), axis=-1).min(axis=1)
        centers = np.concatenate([centers, tries[[gaps.argmax()]]])
    return centers


def render(scene: Scene, frames: np.ndarray, size: int) -> np.ndarray:
    """Frames `frames` (T,) of a scene -> uint8 (T, size, size, 3)."""
    x, y = _points(frames, size, size)
    shift_x, shift_y = _camera(scene, frames)
    picture = np.full((len(frames), size, size, 3), .45)
    for channel, waves in enumerate(scene.background):
        for amplitude, along_x, along_y, phase in waves:
            picture[..., channel] += amplitude * np.cos(
                2 * np.pi * (along_x * (x + shift_x) + along_y * (y + shift_y)) + phase)
    for index in np.flatnonzero(scene.kind):
        u, v = _local(scene, index, frames, x, y)
        share = .5 + .5 * np.tanh(2.5 * _texture(TEXTURES[int(scene.texture)], u, v, scene.look[index, 1]))
        first, second = scene.look[index, 2:5], scene.look[index, 5:8]
        inside = _inside(u, v, scene.look[index, 0])
        picture[inside] = (first + (second - first) * share[..., None])[inside]
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def without_motion(scene: Scene) -> Scene:
    """The same scene without the objects that move: what they hide."""
    return scene._replace(kind=np.where(scene.kind == MOVING, ABSENT, scene.kind))


def coverage(scene: Scene, frames: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What is seen in each cell of a (height, width) grid: moving share, still objects' share; (T, height, width) each.

    Sampled at 8 x 8 points of a cell.
    """
    points = 8
    x, y = _points(frames, height * points, width * points)
    covers = {STILL: np.zeros(x.shape, bool), MOVING: np.zeros(x.shape, bool)}
    for index in np.flatnonzero(scene.kind):
        covers[int(scene.kind[index])] |= _inside(*_local(scene, index, frames, x, y), scene.look[index, 0])
    covers[STILL] &= ~covers[MOVING]   # hidden behind
    cells = [covers[kind].reshape(len(frames), height, points, width, points).mean(axis=(2, 4))
             for kind in (MOVING, STILL)]
    return cells[0], cells[1]


def _points(frames: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres x and y, (T, height, width) each."""
    shape = len(frames), height, width
    x = np.broadcast_to((np.arange(width) + .5) / width, shape)
    y = np.broadcast_to(((np.arange(height) + .5) / height)[:, None], shape)
    return x, y


def _camera(scene: Scene, frames: np.ndarray) -> np.ndarray:
    """(2, T, 1, 1) displacement of the camera in x and y."""
    amplitude, cycles, phase = scene.jitter[..., None].transpose(1, 0, 2)
    return (amplitude * np.sin(2 * np.pi * cycles * frames + phase))[..., None, None]


def _local(scene: Scene, index: int, frames: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An object's own coordinates, in radii and along its own axes, of points x and y."""
    center_x, center_y, radius, angle = scene.place[index]
    steps = frames[:, None, None] if scene.kind[index] == MOVING else 0
    shift_x, shift_y = _camera(scene, frames)
    dx = _wrapped(x + shift_x - center_x - steps * scene.velocity[0]) / radius
    dy = _wrapped(y + shift_y - center_y - steps * scene.velocity[1]) / radius
    return dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)


def _wrapped(distance: np.ndarray) -> np.ndarray:
    """The shorter way round, in [-.5, .5)."""
    return (distance + .5) % 1 - .5


def _inside(u: np.ndarray, v: np.ndarray, roundness: float) -> np.ndarray:
    """A disc of radius 1, or the square of the same area."""
    if roundness:
        return u * u + v * v <= 1
    return np.maximum(np.abs(u), np.abs(v)) <= np.sqrt(np.pi) / 2


def _texture(name: str, u: np.ndarray, v: np.ndarray, cycles: float) -> np.ndarray:
    """A pattern in about [-1, 1] with `cycles` periods in a radius."""
    wave_u, wave_v = np.sin(2 * np.pi * cycles * u), np.sin(2 * np.pi * cycles * v)
    if name == "stripes":
        return wave_u
    if name == "checks":
        return 2 * wave_u * wave_v
    if name == "rings":
        return np.sin(2 * np.pi * cycles * np.hypot(u, v))
    return wave_u + wave_v
