"""Philox4x32-10 in plain Python integers, and the uniform numbers of the sampler made from it.

Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011, section 3.3 (rounds and constants).
"""

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)

DRAFT, ACCEPT, REPLACE, COIN, ORDER = range(5)


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Four 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (product1 >> 32) ^ c1 ^ k0, product1 & MASK, (product0 >> 32) ^ c3 ^ k1, product0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def uniform(seed: int, purpose: int, epoch: int, sample: int, response: int, position: int) -> float:
    """A number in (0, 1) of 53 random bits, a function of its arguments alone."""
    counter = (position, sample, response | purpose << 24, epoch)
    word0, word1, _, _ = philox(counter, (seed & MASK, seed >> 32))
    return (((word0 << 32 | word1) >> 11) + 0.5) * 2.0**-53
