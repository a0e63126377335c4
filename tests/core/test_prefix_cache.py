"""PrefixCache: equal hashes mean equal tokens, equal past, equal extra keys; nothing bad is found."""

import pytest

from quire.core import prefix_cache
from quire.core.prefix_cache import Content, PrefixCache, extend_hashes, first_parent


def hashes_of(
    token_ids: list[int], block_size: int = 2, extra: tuple[str, ...] = ()
) -> list[bytes]:
    hashes: list[bytes] = []
    extend_hashes(hashes, token_ids, block_size, extra)
    return hashes


def publish(cache: PrefixCache, token_ids: list[int], index: int, block_id: int) -> bool:
    """Note that `block_id` contains block `index` of these tokens."""
    hashes = hashes_of(token_ids)
    parent = hashes[index - 1] if index else first_parent()
    block = token_ids[2 * index : 2 * index + 2]
    return cache.publish(block_id, Content(hashes[index], parent, hashes[0], block))


def filled(token_ids: list[int]) -> tuple[PrefixCache, list[bytes]]:
    cache, hashes = PrefixCache(), hashes_of(token_ids)
    for index in range(len(hashes)):
        publish(cache, token_ids, index, index)
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
    assert not publish(cache, [1, 2], 0, 9)
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
    publish(cache, [1, 2, 3, 4, 9, 9], 2, 7)
    publish(cache, [8, 8], 0, 8)
    cache.evict(1)
    assert sorted(cache.withdraw_all_after(hashes[0])) == [0, 2, 7]
    assert cache.published() == {8}
    cache.check()


def test_clear_forgets_everything() -> None:
    cache, hashes = filled([1, 2, 3, 4])
    assert sorted(cache.clear()) == [0, 1]
    assert cache.find(hashes) == []
    assert len(cache) == 0


def test_the_nearest_follower_is_the_one_that_begins_alike() -> None:
    cache, hashes = filled([1, 2, 3, 4])
    publish(cache, [1, 2, 3, 9], 1, 5)
    publish(cache, [1, 2, 7, 9], 1, 6)
    assert cache.nearest(hashes[0], [3, 9]) == (5, 2)
    assert cache.nearest(hashes[0], [3, 8]) == (1, 1)
    assert cache.nearest(hashes[0], [8, 8]) == (1, 0)
    assert cache.nearest(hashes[1], [3, 9]) is None
    cache.evict(1)
    assert cache.nearest(hashes[0], [3, 8]) == (5, 1)
    cache.check()


def test_a_chain_is_followed_to_its_farthest_end() -> None:
    cache, _ = filled([1, 2, 3, 4])
    for index, block_id in ((1, 5), (2, 6), (3, 7)):
        publish(cache, [1, 2, 9, 9, 8, 8, 7, 7], index, block_id)
    assert cache.chain_from(0) == [1, 2, 9, 9, 8, 8, 7, 7]
    assert cache.chain_from(1) == [3, 4]
    cache.evict(6)
    assert len(cache.chain_from(0)) == 4
    cache.check()


def test_looking_for_what_is_near_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "MOST_SIBLINGS", 3)
    monkeypatch.setattr(prefix_cache, "MOST_FOLLOWERS", 3)
    cache = PrefixCache()
    for i in range(10):
        publish(cache, [5, 5 + i], 0, i)
    compared = cache.nearest(first_parent(), [5, 14])
    assert compared is not None and compared[1] == 1
    cache, _ = filled(list(range(40)))
    assert cache.chain_from(0) == list(range(8))
