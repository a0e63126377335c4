"""Paged attention against a dense, naive implementation, on random mixed batches."""

from __future__ import annotations

import math
import random

import pytest
import torch

from kernel_implementations import IMPLEMENTATIONS
from paged_batches import Blocks, make_metadata
from quire_kernels import cpu, reference

each_implementation = pytest.mark.parametrize("ops", IMPLEMENTATIONS)


def naive_attention(query, keys, values, start, *, scale, window, softcap, slopes):
    """One sequence, one head and one row at a time. query [rows, heads, dim], keys [len, kv, dim]."""
    rows, heads, _ = query.shape
    group = heads // keys.shape[1]
    output = torch.empty_like(query)
    for row in range(rows):
        i = start + row
        first = 0 if window is None else max(0, i - window + 1)
        for head in range(heads):
            k, v = keys[first : i + 1, head // group], values[first : i + 1, head // group]
            scores = (k @ query[row, head]).float() * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if slopes is not None:
                scores = scores + slopes[head] * (torch.arange(first, i + 1) - i)
            output[row, head] = scores.softmax(0).to(v.dtype) @ v
    return output


def random_case(rng, block_size, heads, kv_heads, dim, dtype=torch.float32):
    """A mixed batch whose cached part already lies in the cache; everything else is NaN."""
    done = [rng.choice([0, 0, 1, 5, 17, 40]) for _ in range(rng.randint(1, 6))]
    new = [rng.choice([1, 1, 2, 7, 21]) for _ in done]
    blocks = Blocks(num_blocks=500, block_size=block_size, seed=rng.random())
    kv_cache = torch.full((2, 500, kv_heads, block_size, dim), math.nan, dtype=dtype)
    tables = [blocks.table(cached + fresh) for cached, fresh in zip(done, new, strict=True)]
    keys = [torch.randn(a + b, kv_heads, dim, dtype=dtype) for a, b in zip(done, new, strict=True)]
    values = [torch.randn_like(key) for key in keys]
    for table, key, value, cached in zip(tables, keys, values, done, strict=True):
        if cached:
            past = make_metadata([table], [0], [cached], block_size)
            reference.write_kv(key[:cached], value[:cached], kv_cache, past.slots)
    return done, new, tables, keys, values, kv_cache


@each_implementation
@pytest.mark.parametrize("block_size", [1, 8, 16])
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("variant", ["plain", "window", "softcap", "alibi", "everything"])
def test_mixed_batch_equals_naive_attention(ops, block_size, heads, kv_heads, variant):
    rng = random.Random(f"{block_size}{heads}{kv_heads}{variant}")
    torch.manual_seed(rng.randrange(1000))
    window = rng.choice([1, 4, 16]) if variant in ("window", "everything") else None
    softcap = 2.0 if variant in ("softcap", "everything") else None
    slopes = torch.rand(heads) if variant in ("alibi", "everything") else None
    for _ in range(6):
        done, new, tables, keys, values, kv_cache = random_case(rng, block_size, heads, kv_heads, 8)
        meta = make_metadata(tables, done, new, block_size)
        fresh_keys = torch.cat([k[c:] for k, c in zip(keys, done, strict=True)])
        fresh_values = torch.cat([v[c:] for v, c in zip(values, done, strict=True)])
        ops.write_kv(fresh_keys, fresh_values, kv_cache, meta.slots)
        query = torch.randn(sum(new), heads, 8)
        found = ops.paged_attention(
            query, kv_cache, meta, scale=0.4, window=window, softcap=softcap, alibi_slopes=slopes
        )
        start = 0
        for index, fresh in enumerate(new):
            expected = naive_attention(
                query[start : start + fresh], keys[index], values[index], done[index],
                scale=0.4, window=window, softcap=softcap, slopes=slopes,
            )  # fmt: skip
            torch.testing.assert_close(found[start : start + fresh], expected, atol=1e-5, rtol=1e-5)
            start += fresh


@each_implementation
def test_a_block_shared_by_sequences_is_read_by_each_also_when_written_in_the_same_step(ops):
    block_size, dim = 8, 4
    keys, values = torch.randn(2, 8, 1, dim)
    tail_keys, tail_values = torch.randn(2, 2, 1, dim)
    kv_cache = torch.full((2, 4, 1, block_size, dim), math.nan)
    # Sequence 0 writes block 3 in this step; sequence 1 has block 3 as its first and adds two tokens.
    meta = make_metadata([[3], [3, 1]], done=[0, 8], new=[8, 2], block_size=block_size)
    ops.write_kv(
        torch.cat([keys, tail_keys]), torch.cat([values, tail_values]), kv_cache, meta.slots
    )
    query = torch.randn(10, 2, dim)
    found = ops.paged_attention(query, kv_cache, meta, scale=0.5)
    plain = {"scale": 0.5, "window": None, "softcap": None, "slopes": None}
    torch.testing.assert_close(found[:8], naive_attention(query[:8], keys, values, 0, **plain))
    both = torch.cat([keys, tail_keys]), torch.cat([values, tail_values])
    torch.testing.assert_close(found[8:], naive_attention(query[8:], *both, 8, **plain))


@each_implementation
def test_a_sequence_gets_the_same_bits_whoever_its_neighbours_are(ops):
    rng = random.Random(5)
    done, tables = [37, 3, 200], None
    blocks = Blocks(num_blocks=64, block_size=8, seed=1)
    tables = [blocks.table(cached + 1) for cached in done]
    kv_cache = torch.randn(2, 64, 2, 8, 16)
    query = torch.randn(3, 4, 16)
    together = ops.paged_attention(
        query, kv_cache, make_metadata(tables, done, [1, 1, 1], 8), scale=0.25
    )
    for index in rng.sample(range(3), 3):
        meta = make_metadata([tables[index]], [done[index]], [1], 8)
        alone = ops.paged_attention(query[index : index + 1], kv_cache, meta, scale=0.25)
        assert torch.equal(alone[0], together[index])


@each_implementation
def test_reduced_precision_stays_near_float32(ops):
    rng = random.Random(3)
    done, new, tables, keys, values, kv_cache = random_case(rng, 8, 4, 2, 16, torch.bfloat16)
    meta = make_metadata(tables, done, new, 8)
    fresh = [torch.cat([t[c:] for t, c in zip(part, done, strict=True)]) for part in (keys, values)]
    ops.write_kv(*fresh, kv_cache, meta.slots)
    query = torch.randn(sum(new), 4, 16, dtype=torch.bfloat16)
    low = ops.paged_attention(query, kv_cache, meta, scale=0.25)
    assert low.dtype == torch.bfloat16
    high = ops.paged_attention(query.float(), kv_cache.float(), meta, scale=0.25)
    torch.testing.assert_close(low.float(), high, atol=3e-2, rtol=3e-2)


def batch_of(rng, *, dtype, block_size, heads, kv_heads, dim, done, new):
    """Queries with gaps, a cache that is NaN wherever no token of the batch lies, tables and metadata."""
    blocks = Blocks(num_blocks=2 * sum(done + new), block_size=block_size, seed=rng.random())
    tables = [blocks.table(cached + fresh) for cached, fresh in zip(done, new, strict=True)]
    used = 1 + max(max(table) for table in tables)
    kv_cache = torch.full((2, used, kv_heads, block_size, dim), math.nan, dtype=dtype)
    for table, cached, fresh in zip(tables, done, new, strict=True):
        key, value = torch.randn(2, cached + fresh, kv_heads, dim).to(dtype)
        everything = make_metadata([table], [0], [cached + fresh], block_size)
        reference.write_kv(key, value, kv_cache, everything.slots)
    query = torch.randn(sum(new), heads + 3, dim).to(dtype)[:, :heads]
    return query, kv_cache, tables, make_metadata(tables, done, new, block_size)


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
)
@pytest.mark.parametrize("dim", [8, 20, 64, 80, 96, 128, 256])
def test_compiled_attention_equals_the_reference_in_float32(dtype, tolerance, dim):
    rng = random.Random(f"{dtype}{dim}")
    torch.manual_seed(dim)
    for block_size in (1, 4, 8, 16, 32):
        heads, kv_heads = rng.choice([(4, 4), (6, 2), (14, 2), (70, 1)])
        done = [rng.choice([0, 1, 40, 511, 700, 1300]) for _ in range(3)]
        new = [rng.choice([1, 1, 7, 90]) for _ in done]
        query, kv_cache, _, meta = batch_of(
            rng, dtype=dtype, block_size=block_size, heads=heads, kv_heads=kv_heads, dim=dim,
            done=done, new=new,
        )  # fmt: skip
        options = {
            "scale": dim**-0.5,
            "window": rng.choice([None, 1, 16, 100, 600]),
            "softcap": rng.choice([None, 5.0]),
            "alibi_slopes": rng.choice([None, torch.rand(heads)]),
        }
        found = cpu.paged_attention(query, kv_cache, meta, **options)
        expected = reference.paged_attention(query.float(), kv_cache.float(), meta, **options)
        torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 100])
def test_compiled_attention_gives_a_row_the_same_bits_in_any_company(dtype, window):
    """Alone or in a batch, in a whole prompt or a chunk, with one thread or several."""
    rng = random.Random(f"{dtype}{window}")
    done, new = [0, 1300, 3, 511, 40], [700, 1, 33, 64, 2]
    query, kv_cache, tables, meta = batch_of(
        rng, dtype=dtype, block_size=8, heads=14, kv_heads=2, dim=64, done=done, new=new
    )
    together = cpu.paged_attention(query, kv_cache, meta, scale=0.125, window=window)
    threads = torch.get_num_threads()
    for sequence, table in enumerate(tables):
        start = sum(new[:sequence])
        for length in (1, 2, 8, 33, 64):
            if length > new[sequence]:
                continue
            first = rng.randrange(new[sequence] - length + 1)
            rows = slice(start + first, start + first + length)
            part = make_metadata([table], [done[sequence] + first], [length], 8)
            try:
                torch.set_num_threads(rng.choice([1, 3]))
                alone = cpu.paged_attention(query[rows], kv_cache, part, scale=0.125, window=window)
            finally:
                torch.set_num_threads(threads)
            assert torch.equal(alone, together[rows])


@each_implementation
def test_a_row_that_is_not_finite_stays_by_itself(ops):
    query, kv_cache, _, meta = batch_of(
        random.Random(1), dtype=torch.bfloat16, block_size=8, heads=4, kv_heads=2, dim=64,
        done=[20, 30], new=[4, 1],
    )  # fmt: skip
    query[1] = math.nan
    found = ops.paged_attention(query, kv_cache, meta, scale=0.125)
    assert found[1].isnan().all()
    assert found[[0, 2, 3, 4]].isfinite().all()
