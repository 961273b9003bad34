"""Seeds: derived by name, without side effects."""

import random

import numpy as np
import torch

from semc.seed import derive_seed, random_state, restore_random_state, seed_everything, seeded_init


def _draw() -> tuple[float, ...]:
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        *torch.rand(2).tolist(),
    )


def test_derived_seeds_are_fixed_for_ever():
    """Changing this number changes every published result."""
    assert derive_seed(0, "site-a", 3) == 2695834150823386393


def test_derived_seeds_keep_parts_apart():
    seeds = [
        derive_seed(*parts) for parts in [(1, 23), (12, 3), (123,), ("1", 23), (1, "23"), ("1\x1f23",), ()]
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_everything_repeats_every_generator():
    seed_everything(derive_seed(7))
    first = _draw()
    seed_everything(derive_seed(7))
    assert _draw() == first
    seed_everything(derive_seed(8))
    assert not set(_draw()) & set(first)


def test_seeded_init_leaves_the_callers_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded_init(1):
        first = torch.nn.Linear(4, 4).weight.detach().clone()
    assert torch.equal(torch.rand(3), expected)
    with seeded_init(1):
        assert torch.equal(torch.nn.Linear(4, 4).weight, first)


def test_generators_go_on_from_where_they_stood():
    seed_everything(5)
    _draw()  # leaves the second number of a gaussian pair behind, in Python and in numpy
    state = random_state(torch.device("cpu"))
    expected = [_draw(), _draw()]
    seed_everything(99)
    restore_random_state(state, torch.device("cpu"))
    assert [_draw(), _draw()] == expected
    for left_out in ("python", "python_gauss", "numpy", "numpy_place", "torch"):
        seed_everything(99)
        restore_random_state(
            {**state, left_out: random_state(torch.device("cpu"))[left_out]}, torch.device("cpu")
        )
        assert [_draw(), _draw()] != expected, left_out
