# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pool of older fakes: what comes out, in which shares, and after a resume."""

from __future__ import annotations

import io

import pytest
import torch

from ggdr.torch_utils.gan import part
from ggdr.translation.image_pool import ImagePool


def numbered(start: int, n: int = 1) -> torch.Tensor:
    """Images that hold their own numbers, [n, 1, 2, 2]."""
    return torch.arange(start, start + n, dtype=torch.float32)[:, None, None, None].expand(n, 1, 2, 2).clone()


def numbers(images: torch.Tensor) -> list[int]:
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].int().tolist()


def step(pool: ImagePool, images: torch.Tensor, shares: int = 1) -> torch.Tensor:
    """One iteration whose images are looked up in so many interleaved shares."""
    draws, out = pool.draw(len(images)), images.clone()
    for i in range(shares):
        share = slice(i, None, shares)
        out[share] = pool.query(images[share], part(draws, share))
    pool.step_end()
    return out


def run(pool: ImagePool, start: int, steps: int, n: int = 1, shares: int = 1) -> list[int]:
    return [k for i in range(steps) for k in numbers(step(pool, numbered(start + i * n, n), shares))]


def test_a_pool_that_is_not_full_takes_images_in_and_returns_them():
    pool = ImagePool(5)
    assert run(pool, 0, 5) == list(range(5)) and len(pool) == 5
    assert numbers(pool.images) == list(range(5))


@pytest.mark.parametrize("n", [1, 4])
def test_half_of_the_images_are_exchanged_for_older_ones(n):
    pool, size, total = ImagePool(50), 50, 4000
    run(pool, 0, 100 // n, n)
    out = run(pool, 100, total // n, n)
    new = range(100, 100 + total)
    ages = [k - old for k, old in zip(new, out, strict=True)]
    older = [age for age in ages if age > 0]
    assert abs(len(older) / total - 0.5) < 0.03 and min(ages) == 0
    # An image stays until it is one of 50 that is drawn by every other image: for 100 images, on the mean.
    assert abs(sum(older) / len(older) - 2 * size) < 10
    # Nothing is lost and nothing comes out twice, but for what is returned at once.
    assert len(set(out)) == total and len(set(numbers(pool.images))) == size
    assert not set(out) & set(numbers(pool.images))


def test_all_places_of_the_pool_are_drawn_equally_often():
    pool, counts = ImagePool(4), torch.zeros(4)
    run(pool, 0, 4)
    for i in range(4000):
        draws = pool.draw(1)
        if draws["swap"][0]:
            counts[draws["slot"][0]] += 1
        pool.query(numbered(i), draws)
        pool.step_end()
    assert abs(counts.sum() - 2000) < 100 and (counts - 500).abs().max() < 75


def test_images_of_one_batch_do_not_meet_and_the_pool_changes_between_batches_alone():
    pool = ImagePool(3)
    run(pool, 0, 1, n=3)
    draws, images = pool.draw(8), numbered(10, 8)
    first, again = pool.query(images, draws), pool.query(images, draws)
    assert torch.equal(first, again) and numbers(pool.images) == [0, 1, 2]
    assert all(k < 3 or k == 10 + i for i, k in enumerate(numbers(first)))
    assert len(set(numbers(first))) == 8


def test_a_batch_that_is_larger_than_the_pool_fills_it():
    pool = ImagePool(3)
    assert run(pool, 0, 1, n=5) == [0, 1, 2, 3, 4] and numbers(pool.images) == [0, 1, 2]
    pool = ImagePool(4)
    assert run(pool, 0, 2, n=3) == [0, 1, 2, 3, 4, 5] and numbers(pool.images) == [0, 1, 2, 3]


def test_shares_do_not_change_the_result():
    whole, split = ImagePool(6, seed=3), ImagePool(6, seed=3)
    assert run(whole, 0, 20, n=4) == run(split, 0, 20, n=4, shares=2)
    assert torch.equal(whole.images, split.images)


def test_processes_do_not_change_the_result():
    whole, ranks = ImagePool(6, seed=3), [ImagePool(6, seed=3) for _ in range(2)]
    for i in range(20):
        images = numbered(4 * i, 4)
        out = step(whole, images)
        for rank, pool in enumerate(ranks):
            draws = part(pool.draw(4), slice(rank, None, 2))
            assert torch.equal(pool.query(images[rank::2], draws), out[rank::2])
        for rank, pool in enumerate(ranks):

            def gather(rows, num, rank=rank, images=images):
                assert num == 4 and torch.equal(rows, images[rank::2])
                return images

            pool.step_end(gather)
        assert all(torch.equal(pool.images, whole.images) for pool in ranks)


def test_a_resumed_pool_goes_on_exactly():
    whole, pool = ImagePool(5, seed=1), ImagePool(5, seed=1)
    expected = run(whole, 0, 60, n=2)
    out = run(pool, 0, 17, n=2)
    file = io.BytesIO()
    torch.save(pool.state(), file)
    file.seek(0)
    resumed = ImagePool(5, seed=99)
    resumed.load_state(torch.load(file, weights_only=True))
    assert out + run(resumed, 34, 43, n=2) == expected
    assert torch.equal(resumed.images, whole.images)


def test_an_empty_pool_can_be_stored():
    pool = ImagePool(5)
    pool.load_state(ImagePool(5, seed=2).state())
    assert len(pool) == 0 and run(pool, 0, 5) == list(range(5))
    smaller = ImagePool(2)
    smaller.load_state(pool.state())
    assert numbers(smaller.images) == [0, 1]


def test_a_pool_of_no_images_returns_what_it_is_given():
    pool = ImagePool(0)
    assert run(pool, 0, 30) == list(range(30)) and len(pool) == 0


def test_images_come_out_without_gradient():
    pool, images = ImagePool(2), numbered(0, 2).requires_grad_()
    assert not pool.query(images * 2, pool.draw(2)).requires_grad


def test_what_does_not_fit_is_named():
    pool = ImagePool(2)
    run(pool, 0, 2)
    with pytest.raises(ValueError, match=r"holds images of shape \(1, 2, 2\), got \(1, 4, 4\)"):
        pool.query(torch.zeros(1, 1, 4, 4), pool.draw(1))
    with pytest.raises(ValueError, match="got 1 images and draws for 2"):
        pool.query(numbered(0), pool.draw(2))
    with pytest.raises(ValueError, match="a pool holds 0 images or more, got -1"):
        ImagePool(-1)
    with pytest.raises(ValueError, match=r"no tensor \[n, C, H, W\]"):
        pool.load_state({**pool.state(), "images": torch.zeros(3)})
