"""Loops of films: hysteresis against flips one by one, equilibrium against Kaufman, and the line from kelvin to H."""

import re

import numpy as np
import pytest

from hamscope.config import Film, parse_config
from hamscope.errors import ConfigError, UserError
from hamscope.film_samples import draw_states
from hamscope.sim.exact import kaufman_energy
from hamscope.sim.exact_rfim import local_fields
from hamscope.sim.lattice import Lattice, Slab
from hamscope.sim.rfim import random_fields
from hamscope.sim.rng import stream_key

KELVIN = (334.0, 346.0)


def section(model="RF-2D", parameter=1.4, size=64, frames=22, sweep="loop", field=(-3.0, 3.0), at="range", **more):
    if model.startswith("RF"):
        more |= {"field": field, "frames_at": at}
    return Film(
        name="a-film", model=model, parameter=parameter, size=size, frames=frames, seed=3, sweep=sweep, kelvin=KELVIN,
        **more,
    )  # fmt: skip


def settled(up, h, periodic, field, generator) -> np.ndarray:
    """Flip one site after the other, up or down, each drawn from those that gain by it, until none does."""
    up = up.copy()
    while True:
        unstable = np.flatnonzero(np.where(up, -1, 1) * (local_fields(up, h, periodic) + field) > 0)
        if unstable.size == 0:
            return up
        up.flat[generator.choice(unstable)] ^= True


@pytest.mark.parametrize("sweep", ["loop", "minor loop"])
@pytest.mark.parametrize("model, parameter, size", [("RF-2D", 2.0, 12), ("RF-3D", 3.3, 8)])
def test_both_branches_are_those_of_single_flips(model, parameter, size, sweep):
    """Every frame is the state that flips one by one lead to, in random order, from field to field, up and down.

    The major loop comes down from all up, the minor one from the state at its turn; the surface of a 3D sample is
    that of half a cube.  Seen to fail with h_i where -h_i belongs, with H for -H, with the minor loop started from
    `flips <= H`, with the wrong surface, and with the two kinds of loop exchanged.
    """
    field, flat = (-2.5, 1.2), model == "RF-2D"
    film = section(model, parameter, size, 14, sweep, field)
    states, generator = draw_states(film), np.random.default_rng(1)
    shape, periodic = ((size, 1, size), (True, False, True)) if flat else ((size // 2, size, size), (False, True, True))
    h = random_fields(Slab(Lattice(shape, periodic)), parameter, stream_key(film.seed, "film", model, "fields"), 0)
    up, expected = np.zeros(shape, bool), []
    for k, at in enumerate(np.concatenate([np.linspace(*field, 7), np.linspace(*field[::-1], 7)])):
        if k == 7 and sweep == "loop":
            up = np.ones(shape, bool)
        up = settled(up, h, periodic, at, generator)
        expected.append(up[:, 0] if flat else up[0])
    np.testing.assert_array_equal(states.images, np.array(expected, np.uint8))
    assert 0.05 < states.images[7:].mean() < 0.95 and states.images[7:].std(0).any()


@pytest.mark.parametrize("model, parameter, size", [("RF-2D", 1.3, 64), ("RF-3D", 2.8, 32)])
def test_the_loop_encloses_area_and_minor_loops_lie_within(model, parameter, size):
    """The area between the branches is that of two coercive fields, and site for site the major loop holds the minor.

    m goes from -1 to 1 and back, so area = 2 (H up - H down) of m = 0 where branches are steep; asked for within
    20 %.  No passing (doi:10.1103/PhysRevLett.68.670) puts a minor loop between the branches of the major one.  Seen
    to fail with the cooled frames in the order of the heated ones, with one branch for both, and with the loops
    exchanged.
    """
    states = draw_states(section(model, parameter, size, 122, field=(-5.0, 5.0)))
    m, fields = 2 * states.images.mean((1, 2)) - 1, states.field
    area = np.trapezoid(m[:61], fields[:61]) + np.trapezoid(m[61:], fields[61:])
    coercive = np.interp(0, m[:61], fields[:61]) - np.interp(0, m[61:][::-1], fields[61:][::-1])
    assert coercive > 1.5
    assert -area == pytest.approx(2 * coercive, rel=0.2)
    assert m[0] < -0.99 and m[60] > 0.99 and m[-1] < -0.99
    minor = draw_states(section(model, parameter, size, 122, "minor loop", field=(-5.0, 1.3)))
    major = draw_states(section(model, parameter, size, 122, "loop", field=(-5.0, 1.3)))
    np.testing.assert_array_equal(minor.images[:61], major.images[:61])
    np.testing.assert_array_equal(minor.images[61], minor.images[60])
    assert np.all(minor.images[:61][::-1] <= minor.images[61:]) and np.all(minor.images[61:] <= major.images[61:])
    assert -0.99 < 2 * minor.images[60].mean() - 1 < 0.9
    assert (minor.images[61:] > minor.images[:61][::-1]).any() and (minor.images[61:] < major.images[61:]).any()


def test_a_loop_shows_the_transition_of_each_branch():
    """Equal steps from m = -0.85 to 0.85 and back; kelvin is on one line with H, heated above and cooled below 340 K.

    Seen to fail with the fields of the rising branch for both, with kelvin in equal steps, and with its ends swapped.
    """
    states = draw_states(section(frames=24, at="transition", field=(-3.0, 3.0)))
    m = 2 * states.images.mean((1, 2)) - 1
    np.testing.assert_array_equal(states.direction, [1] * 12 + [-1] * 12)
    for branch, sign in ((slice(0, 12), 1), (slice(12, 24), -1)):
        ends = sign * m[branch][[0, -1]]
        assert -0.85 <= ends[0] < -0.82 and 0.85 <= ends[1] < 0.9
        steps = np.diff(states.field[branch])
        np.testing.assert_allclose(steps, steps[0])
        assert np.sign(steps[0]) == sign and np.all(sign * states.field[branch] > 0.3)
    np.testing.assert_allclose(states.kelvin, 340 + 2 * states.field)
    one_way = draw_states(section(frames=12, sweep="up", at="transition", field=(-3.0, 3.0)))
    np.testing.assert_array_equal(one_way.images, states.images[:12])
    np.testing.assert_array_equal(one_way.kelvin, states.kelvin[:12])


def test_a_clean_loop_is_in_equilibrium_on_both_branches():
    """Energies of 64 frames from T = 2.2 to 2.6 and back against Kaufman's, each branch within 4 standard errors.

    The frames of one temperature are lattices of their own.  Seen to fail with cooled frames at the temperatures of
    the heated ones in their order, with T off by 2 %, and with the cooled frames copied from the heated ones.
    """
    states = draw_states(section("C-2D", (2.2, 2.6), frames=64))
    ramp = np.linspace(2.2, 2.6, 32)
    np.testing.assert_allclose(states.parameter, [*ramp, *ramp[::-1]])
    np.testing.assert_allclose(states.kelvin, 334 + 12 * (states.parameter - 2.2) / 0.4)
    spin = 2.0 * states.images - 1
    energy = -sum((spin * np.roll(spin, 1, axis)).mean((1, 2)) for axis in (1, 2))
    exact = np.array([[kaufman_energy(64, 64, t + dt) for dt in (-1e-4, 0, 1e-4)] for t in states.parameter])
    z = (energy - exact[:, 1]) / (states.parameter * np.sqrt((exact[:, 2] - exact[:, 0]) / 2e-4) / 64)
    for branch in (z[:32], z[32:]):
        assert abs(branch.sum()) < 4 * np.sqrt(32)
        assert abs((branch**2).sum() - 32) < 4 * np.sqrt(2 * 32)
    # Far above Tc two lattices overlap little, a lattice with itself by 1.
    overlap = (spin[:32] * spin[32:][::-1]).mean((1, 2))
    assert np.abs(overlap[-8:]).max() < 0.5
    assert np.all(states.field == 0) and np.all(states.direction == np.repeat([1, -1], 32))


def test_a_percolation_loop_goes_there_and_back():
    """The share of up sites follows p to the last frame.  Seen to fail with p rising through all frames."""
    states = draw_states(section("P*", (0.1, 0.9), frames=10))
    p = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.9, 0.7, 0.5, 0.3, 0.1])
    np.testing.assert_allclose(states.parameter, p)
    assert np.all(np.abs(states.images.mean((1, 2)) - p) < 4 * np.sqrt(p * (1 - p) / 4096))


@pytest.mark.parametrize("field", [(-3.0, 1.0), (-0.5, 3.0)])
def test_a_field_that_misses_the_transition_is_said(field):
    """One line with the fields at which the sample turns, for either branch.  Seen to fail with no check."""
    with pytest.raises(UserError, match=r"a-film.*turns from H/J = .*\[.*\]; write a wider field") as caught:
        draw_states(section(at="transition", field=field))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"frames": 5}, "frames = 5: half of a loop is heated; write 6"),
        ({"field": None}, "field is missing; write the H/J at 334 K and at 346 K"),
        ({"field": None, "sweep": "up", "frames_at": "range"}, "field is missing"),
        ({"field": [1, 1]}, "has to span a range"),
        ({"field": [2, -2]}, "runs backwards"),
        ({"sweep": "minor loop", "frames_at": "transition"}, "turns back at the end of field; write 'range'"),
        ({"model": "C-2D"}, "C-2D has no memory; write sweep = 'loop' or 'up', and no field"),
        ({"model": "P*", "parameter": 0.5, "field": None, "sweep": "minor loop"}, "P* has no memory"),
        ({"drift": 0.2}, "blur_px = 0: a sharp film cannot drift; write 0.7 or more"),
        ({"drift": [0.2, 0], "blur_px": 0.5}, "a sharp film cannot drift"),
        ({"drift": -1}, "drift = -1: write the size of a random step, or [rows, columns] a frame"),
        ({"drift": [1, 2, 3]}, "drift = [1, 2, 3]: write"),
        ({"drift": "much"}, "drift = 'much': write"),
        ({"uneven_light": 1}, "uneven_light = 1"),
        ({"psf": "sinc"}, "psf = 'sinc'"),
        ({"electrodes": [[0, 65, 0, 4]]}, "electrodes: [0, 65, 0, 4] is no rectangle within 64 x 64 pixels"),
        ({"electrodes": [[4, 4, 0, 4]]}, "is no rectangle"),
    ],
)
def test_a_film_that_cannot_be_made_is_refused_in_one_line(change, reason):
    """What is wrong and what to write.  Seen to fail, each line, with its check left out."""
    simulate = {"seed": 1, "P-2D": {"probability": [0.5, 0.6], "lattices": 2}}
    film = section(field=[-3, 3]).model_dump(mode="json") | change
    with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
        parse_config({"name": "x", "simulate": simulate, "film": [film]})
    assert "\n" not in str(caught.value)
