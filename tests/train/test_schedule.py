import pytest

from skd.train.schedule import lr_factor


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_warm_up_rises_to_one_and_no_update_has_rate_zero(shape):
    factors = [lr_factor(step, 20, warmup=0.2, shape=shape) for step in range(20)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert all(0 < factor <= 1 for factor in factors)


def test_linear_falls_in_equal_parts():
    factors = [lr_factor(step, 10, warmup=0.0, shape="linear") for step in range(10)]
    assert factors == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_cosine_is_half_in_the_middle():
    assert lr_factor(50, 100, warmup=0.0, shape="cosine") == pytest.approx(0.5)
    assert lr_factor(99, 100, warmup=0.0, shape="cosine") < 0.001


def test_constant_stays():
    assert {lr_factor(step, 10, warmup=0.0, shape="constant") for step in range(10)} == {1.0}
