"""PrefixCache: equal hashes mean equal tokens, equal past, equal extra keys; nothing bad is found."""

import pytest

from quire.core.prefix_cache import PrefixCache, extend_hashes


def hashes_of(
    token_ids: list[int], block_size: int = 2, extra: tuple[str, ...] = ()
) -> list[bytes]:
    hashes: list[bytes] = []
    extend_hashes(hashes, token_ids, block_size, extra)
    return hashes


def filled(token_ids: list[int]) -> tuple[PrefixCache, list[bytes]]:
    cache, hashes = PrefixCache(), hashes_of(token_ids)
    for block_id, block_hash in enumerate(hashes):
        cache.publish(block_hash, hashes[0], block_id)
    return cache, hashes


def test_only_full_blocks_have_a_hash() -> None:
    assert [len(hashes_of([7] * count)) for count in (0, 1, 2, 3, 4)] == [0, 0, 1, 1, 2]


def test_a_hash_covers_everything_before_it() -> None:
    one, other = hashes_of([1, 2, 5, 6]), hashes_of([3, 4, 5, 6])
    assert one[1] != other[1]
    assert one == hashes_of([1, 2, 5, 6])


def test_hashes_extended_in_pieces_equal_those_made_at_once() -> None:
    token_ids = list(range(11))
    hashes: list[bytes] = []
    for end in (1, 3, 4, 9, 11):
        extend_hashes(hashes, token_ids[:end], 2)
    assert hashes == hashes_of(token_ids)


@pytest.mark.parametrize(
    ("one", "other"), [((), ("a",)), (("a",), ("b",)), (("ab", "c"), ("a", "bc")), ((), ("",))]
)
def test_different_extra_keys_never_share_a_block(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    token_ids = list(range(8))
    assert not set(hashes_of(token_ids, 2, one)) & set(hashes_of(token_ids, 2, other))


def test_any_text_can_be_an_extra_key() -> None:
    assert hashes_of([1, 2], 2, ("\ud800\0",)) != hashes_of([1, 2], 2, ("\ud801\0",))


def test_find_stops_at_the_first_gap() -> None:
    cache, hashes = filled([1, 2, 3, 4, 5, 6])
    assert cache.find(hashes) == [0, 1, 2]
    cache.evict(1)
    assert cache.find(hashes) == [0]
    cache.check()


def test_the_first_block_published_for_a_content_stays_the_one() -> None:
    cache, hashes = filled([1, 2])
    assert not cache.publish(hashes[0], hashes[0], 9)
    assert cache.find(hashes) == [0]
    cache.evict(9)  # never published: nothing happens
    assert cache.find(hashes) == [0]


def test_withdrawing_takes_back_these_contents_only() -> None:
    cache, hashes = filled([1, 2, 3, 4, 5, 6])
    assert cache.withdraw([hashes[2], hashes_of([9, 9])[0]]) == [2]
    assert cache.find(hashes) == [0, 1]
    cache.check()


def test_withdrawing_all_after_a_block_reaches_every_branch_past_every_gap() -> None:
    """A block outlives an evicted one before it; it must not come back when that one does."""
    cache, hashes = filled([1, 2, 3, 4, 5, 6])
    branch, stranger = hashes_of([1, 2, 3, 4, 9, 9]), hashes_of([8, 8])
    cache.publish(branch[2], branch[0], 7)
    cache.publish(stranger[0], stranger[0], 8)
    cache.evict(1)
    assert sorted(cache.withdraw_all_after(hashes[0])) == [0, 2, 7]
    assert cache.published() == {8}
    cache.check()


def test_clear_forgets_everything() -> None:
    cache, hashes = filled([1, 2, 3, 4])
    assert sorted(cache.clear()) == [0, 1]
    assert cache.find(hashes) == []
    assert len(cache) == 0
