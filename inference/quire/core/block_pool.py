"""The blocks of the KV cache as numbers: which are in use, by how many, and which is reused next.

It owns ids and reference counts. It does not know what a block contains or who refers to it; only
whether its content is worth keeping when nobody refers to it any more, and for how long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class BlockPool:
    """`num_blocks` blocks, each in exactly one of three states.

    - free: nobody refers to it, its content is of no use;
    - cached: nobody refers to it, but its content may be used again, and is retained or not;
    - referenced: by one or more holders, its content kept or not afterwards.

    Free blocks are handed out first, then cached ones that are not retained, then those that are, in each
    case the least recently used first. Every operation takes constant time per block.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))  # a stack: block 0 is taken first
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._retained: OrderedDict[int, None] = OrderedDict()  # cached too, and reused last
        self._references = [0] * num_blocks
        self._kept = bytearray(num_blocks)  # 1: content is worth keeping
        self._wanted = bytearray(num_blocks)  # 1: for longer than that of others

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can hand out, cached ones included."""
        return len(self._free) + len(self._cached) + len(self._retained)

    @property
    def num_cached(self) -> int:
        """Blocks that nobody refers to and whose content is kept."""
        return len(self._cached) + len(self._retained)

    def num_references(self, block_id: int) -> int:
        return self._references[block_id]

    def is_kept(self, block_id: int) -> bool:
        return bool(self._kept[block_id])

    def allocate(self, count: int) -> list[int]:
        """Hand out `count` blocks, one reference each; the content of cached ones is lost."""
        assert count <= self.num_free, "the caller asks num_free first"
        block_ids = []
        for _ in range(count):
            if self._free:
                block_id = self._free.pop()
            else:
                block_id = (self._cached or self._retained).popitem(last=False)[0]
            self._kept[block_id] = self._wanted[block_id] = 0
            self._references[block_id] = 1
            block_ids.append(block_id)
        return block_ids

    def share(self, block_id: int) -> None:
        """Add a reference to a block whose content is kept."""
        assert self._kept[block_id], "only what is kept can be found again"
        if self._references[block_id] == 0:
            del self._unused(block_id)[block_id]
        self._references[block_id] += 1

    def release(self, block_ids: Iterable[int]) -> None:
        """Take one reference from each block; those released first are reused first."""
        references = self._references
        for block_id in block_ids:
            assert references[block_id] > 0, "released more often than taken"
            references[block_id] -= 1
            if references[block_id] == 0:
                if self._kept[block_id]:
                    self._unused(block_id)[block_id] = None
                else:
                    self._free.append(block_id)

    def keep(self, block_id: int) -> None:
        """Note that a referenced block's content is to be kept."""
        assert self._references[block_id] > 0, "a block is filled by somebody who holds it"
        self._kept[block_id] = 1

    def forget(self, block_id: int) -> None:
        """Note that a block's content is of no use (any more)."""
        unused = self._unused(block_id)
        self._kept[block_id] = self._wanted[block_id] = 0
        if block_id in unused:
            del unused[block_id]
            self._free.append(block_id)

    def retain(self, block_id: int) -> None:
        """Have a block whose content is kept reused after those that are only kept."""
        assert self._kept[block_id], "there is nothing to retain"
        self._wanted[block_id] = 1
        if block_id in self._cached:
            del self._cached[block_id]
            self._retained[block_id] = None

    def let_go(self, block_id: int) -> None:
        """Take `retain` back: the block is one that was just used."""
        self._wanted[block_id] = 0
        if block_id in self._retained:
            del self._retained[block_id]
            self._cached[block_id] = None

    def is_retained(self, block_id: int) -> bool:
        return bool(self._wanted[block_id])

    def _unused(self, block_id: int) -> OrderedDict[int, None]:
        """Where the block is while nobody refers to it."""
        return self._retained if self._wanted[block_id] else self._cached

    def check(self) -> None:
        """Assert that every block is in exactly one state: free + cached + referenced = total."""
        free, cached = set(self._free), set(self._cached) | set(self._retained)
        referenced = {block_id for block_id, count in enumerate(self._references) if count}
        assert len(free) == len(self._free), "a block is free twice"
        assert len(cached) == self.num_cached, "a block is cached twice"
        assert len(free) + len(cached) + len(referenced) == self.num_blocks, "a block is lost"
        assert free | cached | referenced == set(range(self.num_blocks)), "a block in two states"
        assert min(self._references) >= 0, "a negative reference count"
        assert all(self._kept[block_id] for block_id in cached), "cached, but not worth keeping"
        assert not any(self._kept[block_id] for block_id in free), "free, but worth keeping"
        assert all(self._wanted[one] for one in self._retained), "retained for nobody"
        assert not any(self._wanted[one] for one in self._cached), "wanted, but not retained"
        assert all(k or not w for k, w in zip(self._kept, self._wanted, strict=True))
