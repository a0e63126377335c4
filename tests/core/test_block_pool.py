"""BlockPool: a block is in one state; free blocks go first, then cached ones by last use."""

import random
from collections import Counter

import pytest

from quire.core.block_pool import BlockPool


def test_allocated_blocks_are_distinct_and_referenced_once() -> None:
    pool = BlockPool(4)
    blocks = pool.allocate(4)
    assert sorted(blocks) == [0, 1, 2, 3]
    assert [pool.num_references(block) for block in blocks] == [1, 1, 1, 1]
    assert pool.num_free == 0
    pool.check()


def test_a_block_is_free_only_after_its_last_release() -> None:
    pool = BlockPool(1)
    [block] = pool.allocate(1)
    pool.keep(block)
    pool.share(block)
    pool.release([block])
    assert pool.num_free == 0
    pool.release([block])
    assert pool.num_free == 1
    pool.check()


def test_free_blocks_are_reused_before_cached_ones() -> None:
    pool = BlockPool(3)
    kept, _, plain = blocks = pool.allocate(3)
    pool.keep(kept)
    pool.keep(blocks[1])
    pool.release([kept, plain, blocks[1]])
    assert pool.allocate(1) == [plain]


def test_cached_blocks_are_reused_least_recently_used_first() -> None:
    pool = BlockPool(3)
    first, second, third = pool.allocate(3)
    for block in (first, second, third):
        pool.keep(block)
    pool.release([second, first, third])
    pool.share(second)  # used again, so it is the most recent after its release
    pool.release([second])
    assert pool.allocate(3) == [first, third, second]


def test_a_reused_block_is_no_longer_kept() -> None:
    pool = BlockPool(1)
    [block] = pool.allocate(1)
    pool.keep(block)
    pool.release([block])
    assert (pool.num_cached, pool.is_kept(block)) == (1, True)
    pool.allocate(1)
    assert (pool.num_cached, pool.is_kept(block)) == (0, False)
    pool.check()


def test_a_forgotten_block_is_free_at_once_or_when_released() -> None:
    pool = BlockPool(2)
    idle, held = pool.allocate(2)
    pool.keep(idle)
    pool.keep(held)
    pool.release([idle])
    pool.forget(idle)
    pool.forget(held)
    assert pool.num_cached == 0
    pool.release([held])
    assert (pool.num_cached, pool.num_free) == (0, 2)
    pool.check()


@pytest.mark.parametrize("seed", range(20))
def test_every_block_is_in_one_state_after_any_operation(seed: int) -> None:
    draw, pool, held = random.Random(seed), BlockPool(8), Counter[int]()
    for _ in range(300):
        known = [block for block in range(8) if pool.is_kept(block)]
        match draw.choice(("allocate", "share", "release", "keep", "forget")):
            case "allocate" if pool.num_free:
                held.update(pool.allocate(draw.randint(1, pool.num_free)))
            case "share" if known:
                held[block := draw.choice(known)] += 1
                pool.share(block)
            case "release" if held:
                block = draw.choice(sorted(held))
                held -= Counter([block])
                pool.release([block])
            case "keep" if held:
                pool.keep(draw.choice(sorted(held)))
            case "forget":
                pool.forget(draw.randrange(8))
        pool.check()
        assert [pool.num_references(block) for block in range(8)] == [held[b] for b in range(8)]
        assert pool.num_free == 8 - len(held)


def test_check_finds_a_lost_block_and_a_block_in_two_states() -> None:
    pool = BlockPool(2)
    pool._free.pop()
    with pytest.raises(AssertionError, match="lost"):
        pool.check()
    pool._free.append(pool._free[0])
    with pytest.raises(AssertionError, match="twice"):
        pool.check()
