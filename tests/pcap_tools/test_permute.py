"""The permutation: one to one for any size, and the same as an independent implementation."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.permute import MAX_SIZE, Permutation

MASK = (1 << 64) - 1


def reference(size: int, key: str, label: str, value: int) -> int:
    """The published construction in plain integers: see the module's docstring for sources."""
    digest = blake2b(key.encode(), digest_size=64, person=label.encode()).digest()
    keys = [int.from_bytes(digest[8 * n : 8 * n + 8], "little") for n in range(8)]
    bits = (size - 1).bit_length()
    left_bits, right_bits = bits // 2, bits - bits // 2

    def mix(word: int) -> int:
        word &= MASK
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
        word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
        return word ^ word >> 31

    while True:
        left, right = value >> right_bits, value & (1 << right_bits) - 1
        for turn, round_key in enumerate(keys):
            if turn % 2 == 0:
                left ^= mix(right + round_key) & (1 << left_bits) - 1
            else:
                right ^= mix(left + round_key) & (1 << right_bits) - 1
        value = left << right_bits | right
        if value < size:
            return value


@given(size=st.integers(1, 3000), key=st.text(max_size=8), label=st.sampled_from(["a", "home4"]))
@settings(max_examples=60, deadline=None)
def test_it_is_a_bijection(size: int, key: str, label: str) -> None:
    permutation = Permutation(size, key, label)
    numbers = np.arange(size, dtype=np.uint64)
    images = permutation.images(numbers)
    assert sorted(images.tolist()) == list(range(size))
    assert (permutation.values(images) == numbers).all()


@given(data=st.data(), size=st.integers(1, MAX_SIZE), key=st.text(max_size=8))
@settings(max_examples=200, deadline=None)
def test_large_sizes_invert_and_match_the_reference(
    data: st.DataObject, size: int, key: str
) -> None:
    value = data.draw(st.integers(0, size - 1))
    permutation = Permutation(size, key, "external4")
    image = permutation.image_of(value)
    assert image == reference(size, key, "external4", value)
    assert permutation.value_of(image) == value


def test_images_are_spread() -> None:
    """Consecutive numbers land evenly: chi-square over 64 bins, far from the 0.1 % quantile."""
    size = 3_673_334_538
    images = Permutation(size, "key", "external4").images(np.arange(64_000, dtype=np.uint64))
    bins = np.bincount((images * np.uint64(64) // np.uint64(size)).astype(int), minlength=64)
    assert ((bins - 1000.0) ** 2 / 1000.0).sum() < 104  # 63 degrees of freedom


def test_keys_and_labels_make_different_permutations() -> None:
    numbers = np.arange(1000, dtype=np.uint64)
    images = [
        tuple(Permutation(1000, key, label).images(numbers).tolist())
        for key, label in (("a", "x"), ("b", "x"), ("a", "y"))
    ]
    assert len(set(images)) == 3


@pytest.mark.parametrize("size", [0, -1, MAX_SIZE + 1])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        Permutation(size, "key", "label")


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="below"):
        Permutation(10, "key", "label").image_of(10)
