"""Tensors of a step against a plain builder, on random plans of a toy scheduler."""

import numpy as np
import pytest
import torch

from quire.plan import Admission, Chunk, StepPlan
from quire.runner.batch import RequestTable
from quire.sampling_params import SamplingParams

CPU = torch.device("cpu")


class Book:
    """What a request is known to have, kept in plain lists."""

    def __init__(self, ids: list[int], num_prompt: int, prompt_logprobs: int | None) -> None:
        self.ids, self.num_prompt, self.prompt_logprobs = ids, num_prompt, prompt_logprobs
        self.blocks: list[int] = []
        self.computed = 0


def admitted(name: str, book: Book) -> Admission:
    params = SamplingParams(prompt_logprobs=book.prompt_logprobs)
    return Admission(name, tuple(book.ids), book.num_prompt, params, 0, (), ())


@pytest.mark.parametrize("seed", range(12))
def test_tensors_are_those_of_a_plain_builder(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.choice([1, 4, 16]))
    table = RequestTable(size, 1000, CPU)
    books: dict[str, Book] = {}
    made = 0
    for step in range(30):
        released, admissions, chunks = [], [], []
        for name in [name for name in books if rng.random() < 0.1]:
            released.append(name)
            del books[name]
        for name, book in books.items():  # preempted within the step: admitted anew under its name
            if rng.random() < 0.05:
                books[name] = Book(book.ids, book.num_prompt, book.prompt_logprobs)
                admissions.append(admitted(name, books[name]))
        for _ in range(int(rng.integers(0, 3))):
            ids = rng.integers(0, 1000, rng.integers(1, 60)).tolist()
            book = Book(ids, len(ids), 0 if rng.random() < 0.3 else None)
            if rng.random() < 0.3:
                book.computed = int(rng.integers(0, len(ids)))  # found in the prefix cache
            books[f"r{made}"] = book
            admissions.append(admitted(f"r{made}", book))
            made += 1
        for name, book in books.items():
            start, left = book.computed, len(book.ids) - book.computed
            length = int(rng.integers(1, left + 1)) if rng.random() < 0.5 else left
            missing = -(-(start + length) // size) - len(book.blocks)
            blocks = rng.integers(0, 10_000, missing).tolist()
            book.blocks += blocks
            chunks.append(Chunk(name, start, length, tuple(blocks), length == left))
            book.computed += length
        plan = StepPlan(step, tuple(chunks), tuple(admissions), tuple(released))
        table.apply(plan)
        assert len(table) == len(books)
        if not chunks:
            continue
        batch = table.build(plan)
        check(batch, plan, books, size)
        for state in batch.sampled:
            token = int(rng.integers(0, 1000))
            table.append(state, token)
            books[state.request_id].ids.append(token)


def check(batch: object, plan: StepPlan, books: dict[str, Book], size: int) -> None:
    ids, positions, slots, starts, sample_rows, spans = [], [], [], [0], [], []
    for chunk in plan.chunks:
        book, end = books[chunk.request_id], chunk.start + chunk.length
        if book.prompt_logprobs is not None and book.ids[chunk.start + 1 : book.num_prompt]:
            tokens = book.ids[chunk.start + 1 : min(end + 1, book.num_prompt)]
            spans.append((chunk.request_id, len(ids), tokens))
        for position in range(chunk.start, end):
            ids.append(book.ids[position])
            positions.append(position)
            slots.append(book.blocks[position // size] * size + position % size)
        starts.append(len(ids))
        if chunk.samples:
            sample_rows.append(len(ids) - 1)
    ends = [chunk.start + chunk.length for chunk in plan.chunks]
    meta = batch.meta
    assert batch.ids.tolist() == ids and batch.ids.dtype == torch.int64
    assert batch.positions.tolist() == positions and batch.positions.dtype == torch.int64
    assert meta.slots.tolist() == slots and meta.slots.dtype == torch.int64
    assert meta.query_start.tolist() == starts and meta.query_start.dtype == torch.int32
    assert meta.seq_lens.tolist() == ends and meta.seq_lens.dtype == torch.int32
    assert meta.max_query_len == max(chunk.length for chunk in plan.chunks)
    assert meta.max_seq_len == max(ends)
    assert meta.block_tables.dtype == torch.int32
    assert meta.block_tables.shape == (len(ends), -(-max(ends) // size))
    for row, (chunk, end) in enumerate(zip(plan.chunks, ends, strict=True)):
        needed = -(-end // size)
        blocks = books[chunk.request_id].blocks[:needed]
        assert meta.block_tables[row, :needed].tolist() == blocks
    assert batch.sample_rows.tolist() == sample_rows and batch.sample_rows.dtype == torch.int64
    sampled = [chunk.request_id for chunk in plan.chunks if chunk.samples]
    assert [state.request_id for state in batch.sampled] == sampled
    found = [(span.state.request_id, span.first_row, span.token_ids) for span in batch.prompt_spans]
    assert found == spans


def test_a_chunk_that_the_contract_forbids_is_refused() -> None:
    table = RequestTable(4, 1000, CPU)
    table.apply(StepPlan(0, (), (Admission("a", (1, 2, 3, 4, 5), 5, SamplingParams(), 0, (), ()),)))
    with pytest.raises(AssertionError, match="no blocks"):
        table.build(StepPlan(0, (Chunk("a", 0, 5, (1,), True),)))
    with pytest.raises(AssertionError, match="unknown tokens"):
        table.build(StepPlan(0, (Chunk("a", 0, 6, (2,), True),)))


def test_what_lies_beyond_a_block_table_is_a_valid_id() -> None:
    table = RequestTable(1, 1000, CPU)
    admissions = tuple(Admission(n, (1, 2, 3), 3, SamplingParams(), 0, (), ()) for n in "ab")
    table.apply(StepPlan(0, (), admissions))
    table.build(StepPlan(0, (Chunk("a", 0, 3, (7, 8, 9), True),)))
    table.apply(StepPlan(1, (), admissions, released=("a", "b")))
    plan = StepPlan(1, (Chunk("a", 0, 3, (4, 5, 6), True), Chunk("b", 0, 1, (2,), False)))
    tables = table.build(plan).meta.block_tables
    assert tables[0].tolist() == [4, 5, 6] and tables[1, 0] == 2
    assert set(tables.flatten().tolist()) <= {0, 2, 4, 5, 6, 7, 8, 9}
