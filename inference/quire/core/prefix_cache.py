"""What blocks contain: a chain of hashes, one per full block, and the block where each is found.

A block's hash covers its own token ids and everything before them, so that equal hashes mean equal keys
and values in the cache. SHA-256, because a collision would show one caller another's text. The module
does not know requests, reference counts or which block is reused next.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence

BlockHash = bytes

ROOT: BlockHash = bytes(32)  # parent of every first block
TOKEN_BYTES = 8  # ids are hashed as signed 64-bit numbers


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
    parent = hashes[-1] if hashes else _first_parent(extra_keys)
    width = block_size * TOKEN_BYTES
    for offset in range(0, len(data), width):
        parent = hashlib.sha256(parent + data[offset : offset + width]).digest()
        hashes.append(parent)


def _first_parent(extra_keys: Sequence[str]) -> BlockHash:
    """ROOT, or a hash of the keys in which ("ab", "c") and ("a", "bc") differ."""
    if not extra_keys:
        return ROOT
    digest = hashlib.sha256(ROOT)
    for key in extra_keys:
        data = key.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


class PrefixCache:
    """Where the content named by a hash is found: at most one block per hash, one hash per block."""

    def __init__(self) -> None:
        self._block: dict[BlockHash, int] = {}
        self._hashes: dict[
            int, tuple[BlockHash, BlockHash]
        ] = {}  # block -> own, first of its chain

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

    def publish(self, block_hash: BlockHash, first: BlockHash, block_id: int) -> bool:
        """Note what a block contains; False if another block is known to contain it already.

        Args:
            block_hash: of the content.
            first: hash of the chain's first block; equal to `block_hash` for that one itself.
            block_id: where the content is.
        """
        if block_hash in self._block:
            return False
        assert block_id not in self._hashes, "a block has one content"
        self._block[block_hash] = block_id
        self._hashes[block_id] = (block_hash, first)
        return True

    def evict(self, block_id: int) -> None:
        """The block is used for something else now; nothing happens if it was not published."""
        if block_id in self._hashes:
            del self._block[self._hashes.pop(block_id)[0]]

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
        return self.withdraw([own for own, begin in self._hashes.values() if begin == first])

    def clear(self) -> list[int]:
        """Forget everything; the blocks that were known."""
        blocks = list(self._hashes)
        self._block.clear()
        self._hashes.clear()
        return blocks

    def published(self) -> set[int]:
        """The blocks that are known, for checks."""
        return set(self._hashes)

    def check(self) -> None:
        """Assert that hashes and blocks point at each other."""
        own = {block_id: hashes[0] for block_id, hashes in self._hashes.items()}
        assert own == {block_id: block_hash for block_hash, block_id in self._block.items()}
