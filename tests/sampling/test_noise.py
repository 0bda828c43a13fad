"""Counter noise against plain Python integers."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skd.sampling.noise import Purpose, uniform
from tests.oracles import philox

WORD = st.integers(0, 2**31 - 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**64 - 1), st.sampled_from(list(Purpose)), WORD, WORD, st.integers(0, 2**24 - 1), WORD)
def test_uniform_is_philox_of_its_arguments(seed, purpose, epoch, sample, response, position):
    value = uniform(seed, purpose, epoch, sample, response, position)
    assert float(value) == philox.uniform(seed, int(purpose), epoch, sample, response, position)


def test_uniform_broadcasts_over_tensors():
    sample_B1, position_G = torch.tensor([[3], [70_000]]), torch.arange(4)
    values = uniform(5, Purpose.DRAFT, 2, sample_B1, 1, position_G)
    assert values.shape == (2, 4)
    assert values.dtype == torch.float64
    expected = [[philox.uniform(5, philox.DRAFT, 2, s, 1, i) for i in range(4)] for s in (3, 70_000)]
    assert values.tolist() == expected


def test_purposes_have_the_numbers_that_key_the_streams():
    assert [purpose.value for purpose in Purpose] == [0, 1, 2, 3, 4]
    assert [purpose.name for purpose in Purpose] == ["DRAFT", "ACCEPT", "REPLACE", "COIN", "ORDER"]
