// Matrix products over weights that are packed in blocks of 16 output columns.
//
// Owns how the work is cut: into units of a few blocks, shared out among threads, and within a unit into
// tiles of a few rows whose sums stay in registers. A product says how its weights are stored, and its `Dot`
// what one tile computes of them. Every sum is
// taken over the inputs in their order, by the same instructions, whatever the number of rows, threads or
// tiles: a row's result does not depend on its company.
#pragma once

#include "common.h"

namespace quire {

constexpr int kBlock = 16;  // columns of a block
constexpr int kGroup = 32;  // inputs that share a scale, in int8
constexpr int kOffset = 128;  // of int8 weights, which are stored unsigned
constexpr int kParts = kBlock / kLanes;  // registers for one row of a block

// Rows of a tile, and blocks of a unit for that many rows: as many sums as there are registers, but for a
// single row, which waits for memory alone, few streams of weights at a time.
constexpr int kTileRows = kLanes == 16 ? 8 : 6;
constexpr int kWide = kLanes == 16 ? 3 : 1;  // of units that several tiles of rows go through

constexpr int unit_blocks(int rows) {
  if (kLanes == 16) return rows == 1 ? 2 : rows <= 6 ? 4 : kWide;
  return rows == 1 ? 4 : rows == 2 ? 2 : kWide;
}

// Bytes of weights that a core's second-level cache keeps beside the rest; longer units are cut.
constexpr int64_t kCached = 400 << 10;
// The longest unit that is fetched whole while the one before it is worked through.
constexpr int64_t kAhead = 400 << 10;
// How far ahead a unit's first tile fetches, in bytes of a block: steps of all forms divide it.
constexpr int64_t kNear = 3072;
// Rows whose sums are kept while a cut unit is worked through.
constexpr int64_t kChunkRows = 256;
// Rows that go through a thread's weights before the next do, so that both stay in its cache.
constexpr int64_t kPanel = 256;
// Least bytes of weights that a thread takes at a time.
constexpr int64_t kShare = 128 << 10;

struct Span {  // of the inputs, in steps; or of rows
  int64_t begin, end;
};

struct Weights {  // of a tile
  const char* at;  // the first block's, where the span begins
  int64_t block_bytes;  // from block to block
};

struct Fetch {  // of what is multiplied by next
  const char* from;  // as it is stored, of the first block
  int64_t block_bytes, step_bytes;  // from block to block, and how far a tile's step goes on
  int64_t jump_at = -1, jump = 0;  // the step before which it skips so many bytes
};

// A unit's first tile of rows is its product's, the others are of the product that it names as its `Rest`.
//
// A tile's function adds rows [row, row + R) times blocks [block, block + C) over `span` to
// sums[R][C * 16], which are taken as zero where the span begins at 0.
template <class P>
using Tile = void (*)(const typename P::Dot&, int64_t row, int64_t block, Weights weights, Span span, Fetch ahead,
                      float* sums);

template <class P, int R>
Tile<P> tile_of_blocks(int blocks) {
  if (blocks == 1) return &P::Dot::template tile<R, 1>;
  if (blocks == kWide) return &P::Dot::template tile<R, kWide>;
  return &P::Dot::template tile<R, unit_blocks(R)>;
}

template <class P>
Tile<P> tile_of(int rows, int blocks) {
  switch (rows) {
    case 1: return tile_of_blocks<P, 1>(blocks);
    case 2: return tile_of_blocks<P, 2>(blocks);
    case 3: return tile_of_blocks<P, 3>(blocks);
    case 4: return tile_of_blocks<P, 4>(blocks);
    case 5: return tile_of_blocks<P, 5>(blocks);
    case 6: return tile_of_blocks<P, 6>(blocks);
#if defined(__AVX512F__)
    case 7: return tile_of_blocks<P, 7>(blocks);
    case 8: return tile_of_blocks<P, 8>(blocks);
#endif
  }
  __builtin_unreachable();
}

// What a unit's first tile fetches: what it comes to soon, in each of its blocks, and then in those of the next unit.
template <class P>
Fetch fetch_near(const P& product, int64_t block, int64_t blocks, Span part) {
  const int64_t bytes = product.block_bytes(), jump = (blocks - 1) * bytes;
  Fetch ahead{product.stored_at(block, part.begin) + kNear, bytes, P::kStoredStepBytes};
  if (part.end < product.steps()) return ahead;
  ahead.jump_at = part.end - kNear / P::kStoredStepBytes;
  ahead.jump = jump;
  if (ahead.jump_at < part.begin) ahead.from += jump;
  return ahead;
}

// What one of the `tiles` after the first fetches: where the cache has room for both, its share of the unit, or part,
// that is `next`, so that memory is at work as long as the arithmetic is.
template <class P>
Fetch fetch_share(const P& product, int64_t block, int64_t blocks, Span part, const char* next, int64_t tile,
                  int64_t tiles) {
  const int64_t bytes = product.block_bytes(), length = (part.end - part.begin) * P::kStoredStepBytes;
  if (blocks * length > kAhead) return fetch_near(product, block, blocks, part);
  return {next + length * tile / tiles, bytes, std::max<int64_t>(1, P::kStoredStepBytes / tiles)};
}

// One unit: `blocks` blocks from `block` on, rows [begin, end).
template <class P, class Finish>
void run_unit(const P& product, Span rows, int64_t block, int blocks, const Finish& finish,
              std::vector<float>& sums) {
  const int64_t steps = product.steps();
  const int64_t most = std::max<int64_t>(1, kCached / (blocks * P::kStepBytes));
  const int64_t cuts = (steps + most - 1) / most;
  const int64_t span = product.round_up((steps + cuts - 1) / cuts);
  const int64_t width = blocks * kBlock, tile_sums = kTileRows * width;
  const int64_t count_all = rows.end - rows.begin, tiles_all = (count_all + kTileRows - 1) / kTileRows;
  // Sums of a whole unit are finished tile by tile; those of a cut one are kept until its last part.
  const int64_t kept = cuts == 1 ? 1 : kChunkRows / kTileRows, per_chunk = cuts == 1 ? tiles_all : kept;
  sums.resize(std::max<size_t>(sums.size(), kept * tile_sums));
  for (int64_t first = 0; first < tiles_all; first += per_chunk) {
    const int64_t last = std::min(first + per_chunk, tiles_all);
    for (int64_t begin = 0; begin < steps; begin += span) {
      const Span part{begin, std::min(begin + span, steps)};
      const bool ends = part.end == steps;
      const char* next = product.stored_at(ends ? block + blocks : block, ends ? 0 : part.end);
      const Weights weights = product.weights_of(block, blocks, part);
      for (int64_t i = first; i < last; ++i) {
        const int64_t row = count_all * i / tiles_all, count = count_all * (i + 1) / tiles_all - row;
        float* at = sums.data() + (cuts == 1 ? 0 : i - first) * tile_sums;
        const Fetch ahead = i == first ? fetch_near(product, block, blocks, part)
                                       : fetch_share(product, block, blocks, part, next, i - first - 1, last - first - 1);
        if (i == first) {
          tile_of<P>(count, blocks)(product, rows.begin + row, block, weights, part, ahead, at);
        } else {
          tile_of<typename P::Rest>(count, blocks)(product.rest(), rows.begin + row, block,
                                                   product.weights_of_rest(weights, blocks, part), part, ahead, at);
        }
        if (ends) finish(rows.begin + row, count, block, blocks, at);
      }
    }
  }
}

template <class P, class Finish>
void multiply(const P& product, int64_t rows, int64_t columns, int threads, const Finish& finish) {
  const int64_t blocks = (columns + kBlock - 1) / kBlock;
  const int unit = rows > kTileRows ? kWide : unit_blocks(static_cast<int>(rows));
  const int64_t bytes = product.block_bytes();
  const int64_t even = blocks / (static_cast<int64_t>(threads) * 8);  // so many that threads end together
  const int64_t most = rows > kPanel ? std::max<int64_t>(1, kAhead / bytes) : blocks;
  const int64_t share = std::min(most, std::max({even, kShare / bytes, int64_t{1}}));
  const int64_t taken = (share + unit - 1) / unit * unit;
  const int64_t shares = (blocks + taken - 1) / taken;
  parallel_for(shares, threads, [&](int64_t s) {
    static thread_local std::vector<float> sums;
    const int64_t end = std::min((s + 1) * taken, blocks);
    for (int64_t row = 0; row < rows; row += kPanel) {
      const Span panel{row, std::min(row + kPanel, rows)};
      int64_t block = s * taken;
      for (; block + unit <= end; block += unit) run_unit(product, panel, block, unit, finish, sums);
      for (; block < end; ++block) run_unit(product, panel, block, 1, finish, sums);
    }
  });
}

// Adds the bias to finished sums and writes them in the output's dtype.
struct Finish {
  Kind kind;        // of the bias
  const void* bias;  // or null
  Kind out_kind;
  char* out;
  int64_t columns;

  void operator()(int64_t row, int64_t rows, int64_t block, int64_t blocks, float* sums) const {
    const int64_t first = block * kBlock, width = blocks * kBlock;
    const int64_t count = std::min(width, columns - first);
    for (int64_t r = 0; r < rows; ++r) {
      float* values = sums + r * width;
      if (bias) {
        for (int64_t i = 0; i < count; ++i) values[i] += read(kind, bias, first + i);
      }
      with_type(out_kind, [&](auto type) {
        auto* to = reinterpret_cast<decltype(type)*>(out) + (row + r) * columns + first;
        for (int64_t i = 0; i < count; i += kLanes) narrow(load<Floats>(values + i), to + i, count - i);
      });
    }
  }
};

}  // namespace quire
