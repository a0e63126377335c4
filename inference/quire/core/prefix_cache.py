"""What blocks contain: a chain of hashes, one per full block, and the block where each is found.

A block's hash covers its own token ids and everything before them, so that equal hashes mean equal keys
and values in the cache. SHA-256, because a collision would show one caller another's text. Token ids are kept
beside the hashes to explain a miss: what the cache has in place of what was asked for. The module does not
know requests, reference counts or which block is reused next.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

BlockHash = bytes

ROOT: BlockHash = bytes(32)  # parent of every first block
TOKEN_BYTES = 8  # ids are hashed as signed 64-bit numbers
MOST_SIBLINGS = 1024  # blocks that `nearest` compares
MOST_FOLLOWERS = 2048  # blocks that `chain_from` looks at


def extend_hashes(
    hashes: list[BlockHash],
    token_ids: Sequence[int],
    block_size: int,
    extra_keys: Sequence[str] = (),
) -> None:
    """Append the hashes of full blocks of `token_ids` that `hashes` does not hold yet.

    Each is sha256(parent hash, token ids, and for the first block the extra keys). What makes keys and
    values differ for equal ids (an adapter, an image's content), or must not be shared (a salt), goes
    into the extra keys; the chain carries it on to all later blocks.
    """
    first, end = len(hashes), len(token_ids) // block_size
    if first >= end:
        return
    data = array("q", token_ids[first * block_size : end * block_size]).tobytes()
    parent = hashes[-1] if hashes else first_parent(extra_keys)
    width = block_size * TOKEN_BYTES
    for offset in range(0, len(data), width):
        parent = hashlib.sha256(parent + data[offset : offset + width]).digest()
        hashes.append(parent)


def first_parent(extra_keys: Sequence[str] = ()) -> BlockHash:
    """ROOT, or a hash of the keys in which ("ab", "c") and ("a", "bc") differ."""
    if not extra_keys:
        return ROOT
    digest = hashlib.sha256(ROOT)
    for key in extra_keys:
        data = key.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


class Content(NamedTuple):
    """What a block contains.

    Args:
        own: its hash.
        parent: hash of the block before it, or `first_parent`.
        first: hash of its chain's first block; `own` for that one itself.
        token_ids: of this block alone.
    """

    own: BlockHash
    parent: BlockHash
    first: BlockHash
    token_ids: Sequence[int]


class PrefixCache:
    """Where the content named by a hash is found: at most one block per hash, one hash per block."""

    def __init__(self) -> None:
        self._block: dict[BlockHash, int] = {}
        self._contents: dict[int, Content] = {}  # by block
        self._children: dict[BlockHash, set[int]] = {}  # parent -> blocks

    def __len__(self) -> int:
        return len(self._block)

    def find(self, hashes: Iterable[BlockHash]) -> list[int]:
        """The blocks of the longest run of `hashes`, from the first on, that is known."""
        found = []
        for block_hash in hashes:
            block_id = self._block.get(block_hash)
            if block_id is None:
                break
            found.append(block_id)
        return found

    def publish(self, block_id: int, content: Content) -> bool:
        """Note what a block contains; False if another block is known to contain it already."""
        if content.own in self._block:
            return False
        assert block_id not in self._contents, "a block has one content"
        self._block[content.own] = block_id
        self._contents[block_id] = content
        self._children.setdefault(content.parent, set()).add(block_id)
        return True

    def evict(self, block_id: int) -> None:
        """The block is used for something else now; nothing happens if it was not published."""
        content = self._contents.pop(block_id, None)
        if content is not None:
            del self._block[content.own]
            siblings = self._children[content.parent]
            siblings.remove(block_id)
            if not siblings:
                del self._children[content.parent]

    def withdraw(self, hashes: Iterable[BlockHash]) -> list[int]:
        """Take these contents back; the blocks that were known to have them."""
        blocks = [self._block[block_hash] for block_hash in hashes if block_hash in self._block]
        for block_id in blocks:
            self.evict(block_id)
        return blocks

    def withdraw_all_after(self, first: BlockHash) -> list[int]:
        """Take back every chain that begins with this block; the blocks that were known.

        What was computed from a bad block is no better, and the chain's links in between may be gone.
        Goes through the whole cache: it is for failures, which are rare.
        """
        return self.withdraw([one.own for one in self._contents.values() if one.first == first])

    def clear(self) -> list[int]:
        """Forget everything; the blocks that were known."""
        blocks = list(self._contents)
        self._block.clear()
        self._contents.clear()
        self._children.clear()
        return blocks

    def nearest(self, parent: BlockHash, token_ids: Sequence[int]) -> tuple[int, int] | None:
        """Of the blocks that follow `parent`, the one most like `token_ids`, and how many ids are alike.

        None if no block follows. Of very many that do, only some are compared.
        """
        best: tuple[int, int] | None = None
        for block_id in islice(self._children.get(parent, ()), MOST_SIBLINGS):
            pairs = zip(token_ids, self._contents[block_id].token_ids, strict=False)
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if best is None or (alike, -block_id) > (best[1], -best[0]):
                best = block_id, alike
        return best

    def chain_from(self, block_id: int) -> list[int]:
        """Token ids of the longest known chain that begins with this block; of a vast one, a part."""
        before: dict[int, int] = {}
        reached = [block_id]
        for one in reached:  # grows while it is read: what is reached last is farthest
            if len(reached) > MOST_FOLLOWERS:
                break
            for child in sorted(self._children.get(self._contents[one].own, ())):
                before[child] = one
                reached.append(child)
        path = [reached[-1]]
        while path[-1] != block_id:
            path.append(before[path[-1]])
        return [id for one in reversed(path) for id in self._contents[one].token_ids]

    def published(self) -> set[int]:
        """The blocks that are known, for checks."""
        return set(self._contents)

    def check(self) -> None:
        """Assert that hashes, blocks and parents point at each other."""
        own = {block_id: content.own for block_id, content in self._contents.items()}
        assert own == {block_id: block_hash for block_hash, block_id in self._block.items()}
        followers = [(parent, one) for parent, group in self._children.items() for one in group]
        assert all(self._children.values()), "a parent without a follower"
        assert sorted(followers) == sorted(
            (content.parent, block_id) for block_id, content in self._contents.items()
        )
