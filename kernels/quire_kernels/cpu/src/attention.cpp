// Paged attention for a mixed batch in one call.
//
// Rows are pairs of a token and a query head; those that share a key head go together, up to kRows at a
// time, through their sequence's keys in tiles of kKeys: the tile's keys and values are brought into the
// order that products need, once for all rows, then come scores, an online softmax (Milakov and Gimelshein
// 2018; Dao et al. 2022) and the sum of values.
//
// A row's result does not depend on its company. Tiles and spans of keys end at fixed positions of the
// sequence, whoever attends; a span starts from nothing, and spans are merged in order, also where several
// threads share one long sequence. Keys that a row does not see add exactly nothing.
//
// The cache of a layer is [2][blocks][kv_heads][block_size][head_dim]: keys, then values.
#include "common.h"

namespace quire {
namespace {

constexpr int kKeys = 64;    // keys of a tile
constexpr int kSpan = 512;   // keys of a span
constexpr int kRows = 64;    // most rows that go through the keys together, if one token has not more
constexpr int kTileRows = 6;  // rows whose sums stay in registers
constexpr int kColumns = kLanes == 8 ? 2 : 4;  // and how many registers each has

constexpr float kNothing = -__builtin_inff();

struct Batch {
  const char* query;
  int64_t token_stride, head_stride;  // in elements
  const char* cache;
  char* out;  // [tokens][heads][head_dim]
  const int32_t* query_start;  // [sequences + 1]
  const int32_t* lengths;      // [sequences], in tokens
  const int32_t* tables;       // [sequences][table_stride]
  int64_t table_stride, sequences, num_blocks, heads, kv_heads, block_size, head_dim;
  float scale, softcap;  // softcap 0: none
  int64_t window;        // 0: none
  const float* slopes;   // [heads], or null

  int64_t group() const { return heads / kv_heads; }
  int64_t most_rows() const { return std::max<int64_t>(kRows, group()); }  // of an item
  int64_t width() const { return (head_dim + 15) / 16 * 16; }  // of a row of sums
  int64_t first_visible(int64_t position) const {
    return window ? std::max<int64_t>(0, position - window + 1) : 0;
  }
};

// Rows that go together: some tokens of one sequence, and the heads of one key head.
struct Item {
  int64_t sequence, kv_head;
  int64_t first_token, tokens;      // of the batch
  int64_t position;                 // of the first token
  int64_t first_span, spans;
  int64_t part;  // where its spans' results go in the shared workspace; -1: nowhere
};

// How products are taken. `kValues` numbers of both sides lie in a word: a step of the sum.
template <class T>
struct Single {
  using Cached = T;
  static constexpr int kValues = 1;
  static Floats dot(Floats sum, Words b, uint32_t a) {
    return sum + (Floats)b * (Floats)(Words{} + a);
  }
  // Words of a row from element `from` on, as many as a register holds; none if it is not `valid`.
  static Words row(const T* row, int64_t from, int64_t end, bool valid) {
    return valid ? (Words)widen(row + from, end - from) : Words{};
  }
  static Words whole_row(const T* row, int64_t from) { return (Words)widen(row + from); }
  // Steps of values: one key each.
  static Words values(const T* const* rows, int64_t from, int64_t end, int valid) {
    return row(rows[0], from, end, valid > 0);
  }
  static Words whole_values(const T* const* rows, int64_t from) { return (Words)widen(rows[0] + from); }
  static void weights(Floats x, uint32_t* to) { store(to, x); }
};

#if defined(__AVX512BF16__)
struct Pairs {
  using Cached = bfloat16;
  static constexpr int kValues = 2;
  static Floats dot(Floats sum, Words b, uint32_t a) {
    const __m512i pair = _mm512_set1_epi32(static_cast<int>(a));
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)b, (__m512bh)pair);
  }
  static Words row(const bfloat16* row, int64_t from, int64_t end, bool valid) {
    const int64_t count = valid ? std::min<int64_t>(end - from, 32) : 0;
    return (Words)_mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << count) - 1), row + from);
  }
  static Words whole_row(const bfloat16* row, int64_t from) { return load<Words>(row + from); }
  static Words values(const bfloat16* const* rows, int64_t from, int64_t end, int valid) {
    const unsigned mask = (1u << std::min<int64_t>(end - from, 16)) - 1;
    const auto words = [&](int i) {
      const __mmask16 kept = static_cast<__mmask16>(valid > i ? mask : 0);
      return (Words)_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(kept, rows[i] + from));
    };
    return words(0) | words(1) << 16;
  }
  static Words whole_values(const bfloat16* const* rows, int64_t from) {
    const auto words = [&](int i) { return (Words)_mm512_cvtepu16_epi32(load<__m256i>(rows[i] + from)); };
    return words(0) | words(1) << 16;
  }
  static void weights(Floats x, uint32_t* to) { store(to, _mm512_cvtneps_pbh((__m512)x)); }
};
template <class T>
struct Product : Single<T> {};
template <>
struct Product<bfloat16> : Pairs {};
#else
template <class T>
struct Product : Single<T> {};
#endif

// out[R][C registers] = a[R][steps] . b[steps][C registers], added to out * factors where there are any.
template <class P, int R, int C>
void multiply(const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride, int64_t steps,
              const float* factors, float* out, int64_t out_stride) {
  Floats sums[R][C];
  UNROLL for (int r = 0; r < R; ++r) {
    UNROLL for (int c = 0; c < C; ++c) {
      sums[r][c] =
          factors ? load<Floats>(out + r * out_stride + c * kLanes) * splat(factors[r]) : Floats{};
    }
  }
  for (int64_t s = 0; s < steps; ++s) {
    Words columns[C];
    UNROLL for (int c = 0; c < C; ++c) columns[c] = load<Words>(b + s * b_stride + c * kLanes);
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int c = 0; c < C; ++c) sums[r][c] = P::dot(sums[r][c], columns[c], a[r * a_stride + s]);
    }
  }
  UNROLL for (int r = 0; r < R; ++r) {
    UNROLL for (int c = 0; c < C; ++c) store(out + r * out_stride + c * kLanes, sums[r][c]);
  }
}

template <class P, int R>
void multiply_rows(const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride, int64_t steps,
                   const float* factors, float* out, int64_t out_stride, int64_t columns) {
  int64_t c = 0;
  const auto run = [&](auto* kernel) {
    kernel(a, a_stride, b + c, b_stride, steps, factors, out + c, out_stride);
  };
  for (; columns - c >= kColumns * kLanes; c += kColumns * kLanes) run(multiply<P, R, kColumns>);
  switch ((columns - c + kLanes - 1) / kLanes) {
    case 3: return run(multiply<P, R, std::min(3, kColumns)>);
    case 2: return run(multiply<P, R, std::min(2, kColumns)>);
    case 1: return run(multiply<P, R, 1>);
  }
}

template <class P>
void multiply_tile(int64_t rows, const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride,
                   int64_t steps, const float* factors, float* out, int64_t out_stride, int64_t columns) {
  const auto run = [&](auto* kernel) {
    kernel(a, a_stride, b, b_stride, steps, factors, out, out_stride, columns);
  };
  switch (rows) {
    case 1: return run(multiply_rows<P, 1>);
    case 2: return run(multiply_rows<P, 2>);
    case 3: return run(multiply_rows<P, 3>);
    case 4: return run(multiply_rows<P, 4>);
    case 5: return run(multiply_rows<P, 5>);
    case 6: return run(multiply_rows<P, 6>);
  }
  __builtin_unreachable();
}

// Exchanges rows and columns of a square of words, by halves of halves (Eklundh 1972).
template <int kStep>
inline void transpose(Words* rows) {
  Words low, high;
  UNROLL for (int i = 0; i < kLanes; ++i) {
    low[i] = i & kStep ? kLanes + i - kStep : i;
    high[i] = i & kStep ? kLanes + i : i + kStep;
  }
  UNROLL for (int i = 0; i < kLanes; ++i) {
    if (i & kStep) continue;
    const Words a = rows[i], b = rows[i + kStep];
    rows[i] = __builtin_shuffle(a, b, low);
    rows[i + kStep] = __builtin_shuffle(a, b, high);
  }
  if constexpr (kStep > 1) transpose<kStep / 2>(rows);
}

// Memory that one thread works in, lines of 64 bytes.
class Scratch {
 public:
  void clear() { used_ = 0; }
  void reserve(int64_t bytes) {
    if (static_cast<size_t>(bytes) > lines_.size() * sizeof(Line)) lines_.resize(bytes / sizeof(Line) + 1);
  }
  template <class V>
  V* take(int64_t count) {
    V* taken = reinterpret_cast<V*>(lines_.data() + used_);
    used_ += (count * sizeof(V) + sizeof(Line) - 1) / sizeof(Line);
    return taken;
  }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  std::vector<Line> lines_;
  size_t used_ = 0;
};

// What is known of rows after some keys: the greatest score, the sum of weights relative to it, and the
// weighted sum of values, [rows][width].
struct State {
  float *top, *weight, *sums;

  static State in(float* memory, int64_t rows) { return {memory, memory + rows, memory + 2 * rows}; }
  static int64_t size(int64_t rows, int64_t width) { return rows * (2 + width); }
};

inline float finite_or_zero(float top) { return top == kNothing ? 0 : top; }

// Adds what came of later keys.
void merge(const State& total, const State& later, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const float top = later.top[r] > total.top[r] ? later.top[r] : total.top[r];
    const float before = exp_of(total.top[r] - finite_or_zero(top));
    const float after = exp_of(later.top[r] - finite_or_zero(top));
    total.top[r] = top;
    total.weight[r] = total.weight[r] * before + later.weight[r] * after;
    for (int64_t i = 0; i < width; i += kLanes) {
      float* at = total.sums + r * width + i;
      store(at, load<Floats>(at) * splat(before) + load<Floats>(later.sums + r * width + i) * splat(after));
    }
  }
}

template <class P>
class Worker {
  using T = typename P::Cached;

 public:
  Worker(const Batch& batch, Scratch& scratch) : b_(batch) {
    const int64_t width = b_.width(), rows = b_.most_rows();
    steps_ = (b_.head_dim + P::kValues - 1) / P::kValues;
    scratch.clear();
    scratch.reserve(4 * (rows * steps_ + kKeys * (width + steps_ + kLanes) + 2 * kTileRows * kKeys +
                         2 * State::size(rows, width)) + 4096);
    query_ = scratch.template take<uint32_t>(rows * steps_);
    keys_ = scratch.template take<uint32_t>(kKeys * (steps_ + kLanes));
    values_ = scratch.template take<uint32_t>(kKeys / P::kValues * width);
    scores_ = scratch.template take<float>(kTileRows * kKeys);
    weights_ = scratch.template take<uint32_t>(kTileRows * kKeys);
    total_ = State::in(scratch.template take<float>(State::size(rows, width)), rows);
    later_ = State::in(scratch.template take<float>(State::size(rows, width)), rows);
  }

  // One item from its first span to its last; what came of them is written out, or kept span by span.
  void run(const Item& item, float* parts) {
    item_ = &item;
    rows_ = item.tokens * b_.group();
    load_query();
    for (int64_t i = 0; i < item.spans; ++i) {
      const int64_t begin = (item.first_span + i) * kSpan;
      if (item.part >= 0) {
        attend(begin, kept(parts, item.part + i));
      } else if (i == 0) {
        attend(begin, total_);
      } else {
        attend(begin, later_);
        merge(total_, later_, rows_, b_.width());
      }
    }
    if (item.part < 0) write(item, total_);
  }

  // The end of an item whose spans were kept.
  void finish(const Item& item, float* parts) {
    const State total = kept(parts, item.part);
    for (int64_t i = 1; i < item.spans; ++i) {
      merge(total, kept(parts, item.part + i), item.tokens * b_.group(), b_.width());
    }
    write(item, total);
  }

 private:
  State kept(float* parts, int64_t part) const {
    return State::in(parts + part * State::size(b_.most_rows(), b_.width()), b_.most_rows());
  }

  void load_query() {
    const int64_t group = b_.group();
    for (int64_t r = 0; r < rows_; ++r) {
      const int64_t token = item_->first_token + r / group, head = item_->kv_head * group + r % group;
      const T* from = reinterpret_cast<const T*>(b_.query) + token * b_.token_stride + head * b_.head_stride;
      uint32_t* to = query_ + r * steps_;
      if constexpr (P::kValues == 2) {
        to[steps_ - 1] = 0;
        std::memcpy(to, from, b_.head_dim * sizeof(T));
      } else {
        for (int64_t i = 0; i < steps_; i += kLanes) {
          narrow(widen(from + i, steps_ - i), reinterpret_cast<float*>(to) + i, steps_ - i);
        }
      }
    }
  }

  void write(const Item& item, const State& state) {
    const int64_t group = b_.group(), rows = item.tokens * group;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t token = item.first_token + r / group, head = item.kv_head * group + r % group;
      T* to = reinterpret_cast<T*>(b_.out) + (token * b_.heads + head) * b_.head_dim;
      const Floats factor = splat(1.0f / state.weight[r]);
      for (int64_t i = 0; i < b_.head_dim; i += kLanes) {
        narrow(load<Floats>(state.sums + r * b_.width() + i) * factor, to + i, b_.head_dim - i);
      }
    }
  }

  // All rows of the item over the span that starts at key `begin`.
  void attend(int64_t begin, const State& state) {
    const int64_t last = item_->position + item_->tokens;  // past the last key that any row sees
    const int64_t first = std::max(begin, b_.first_visible(item_->position));
    const int64_t end = std::min(begin + kSpan, last);
    std::fill(state.top, state.top + rows_, kNothing);
    std::fill(state.weight, state.weight + rows_, 0.0f);
    const T* found[2][2 * kKeys];  // rows of keys, then of values, of this tile and the next
    int64_t tile = first / kKeys * kKeys;
    locate(tile, end, found[0]);
    bool fresh = true;
    for (int turn = 0; tile < end; tile += kKeys, turn ^= 1, fresh = false) {
      if (tile + kKeys < end) locate(tile + kKeys, end, found[turn ^ 1]);
      const T* const* next = tile + kKeys < end ? found[turn ^ 1] : nullptr;
      const int64_t skipped = std::max<int64_t>(0, first - tile);
      const int64_t count = std::min<int64_t>(kKeys, end - tile);
      load_keys(found[turn], next, skipped, count);
      load_values(found[turn] + kKeys, next ? next + kKeys : nullptr, skipped, count);
      const int64_t blocks = (rows_ + kTileRows - 1) / kTileRows;
      for (int64_t i = 0; i < blocks; ++i) {
        const int64_t row = rows_ * i / blocks;
        tile_rows(row, rows_ * (i + 1) / blocks - row, tile, count, fresh, state);
      }
    }
    if (fresh) std::fill(state.sums, state.sums + rows_ * b_.width(), 0.0f);
  }

  // Where the keys and values of the tile from position `tile` on lie; beyond `end` they are the first's.
  void locate(int64_t tile, int64_t end, const T** found) const {
    const int32_t* table = b_.tables + item_->sequence * b_.table_stride;
    const int64_t block_size = b_.block_size, head_dim = b_.head_dim;
    const int64_t to_values = b_.num_blocks * b_.kv_heads * block_size * head_dim;
    const int64_t count = std::min<int64_t>(kKeys, end - tile);
    int64_t block = tile / block_size, offset = tile % block_size;
    for (int64_t i = 0; i < count; ++block, offset = 0) {
      const int64_t place = (table[block] * b_.kv_heads + item_->kv_head) * block_size + offset;
      const T* row = reinterpret_cast<const T*>(b_.cache) + place * head_dim;
      const int64_t stop = std::min(count, i + block_size - offset);
      for (; i < stop; ++i, row += head_dim) {
        found[i] = row;
        found[kKeys + i] = row + to_values;
      }
    }
    for (int64_t i = count; i < kKeys; ++i) {
      found[i] = found[0];
      found[kKeys + i] = found[kKeys];
    }
  }

  static void fetch(const T* row, int64_t head_dim) {
    const char* bytes = reinterpret_cast<const char*>(row);
    for (int64_t i = 0; i < head_dim * static_cast<int64_t>(sizeof(T)); i += 64) {
      __builtin_prefetch(bytes + i, 0, 2);  // to the second-level cache, which has more requests under way
    }
  }

  // Keys as [steps][kKeys]; zero where they are not among [skipped, count).
  void load_keys(const T* const* rows, const T* const* next, int64_t skipped, int64_t count) {
    const int64_t head_dim = b_.head_dim, steps = steps_;
    uint32_t* keys = keys_;
    for (int64_t key = 0; key < count; key += kLanes) {
      for (int64_t step = 0; step < steps; step += kLanes) {
        Words square[kLanes];
        const int64_t from = step * P::kValues;
        if (key >= skipped && key + kLanes <= count && from + kLanes * P::kValues <= head_dim) {
          UNROLL for (int i = 0; i < kLanes; ++i) square[i] = P::whole_row(rows[key + i], from);
        } else {
          for (int i = 0; i < kLanes; ++i) {
            const bool valid = key + i >= skipped && key + i < count;
            square[i] = P::row(rows[key + i], from, head_dim, valid);
          }
        }
        transpose<kLanes / 2>(square);
        UNROLL for (int i = 0; i < kLanes; ++i) store(keys + (step + i) * kKeys + key, square[i]);
      }
      if (next) {
        for (int i = 0; i < kLanes; ++i) fetch(next[key + i], head_dim);
      }
    }
  }

  // Values as [keys / kValues][width].
  void load_values(const T* const* rows, const T* const* next, int64_t skipped, int64_t count) {
    const int64_t head_dim = b_.head_dim, width = b_.width();
    uint32_t* values = values_;
    for (int64_t key = 0; key < count; key += P::kValues) {
      uint32_t* to = values + key / P::kValues * width;
      const int valid = static_cast<int>(std::min<int64_t>(P::kValues, count - key));
      if (key >= skipped && valid == P::kValues && width == head_dim) {
        for (int64_t i = 0; i < width; i += 16) {
          UNROLL for (int part = 0; part < 16; part += kLanes) {
            store(to + i + part, P::whole_values(rows + key, i + part));
          }
        }
      } else if (key >= skipped) {
        for (int64_t i = 0; i < width; i += kLanes) {
          store(to + i, i < head_dim ? P::values(rows + key, i, head_dim, valid) : Words{});
        }
      } else {  // the first of a pair may be skipped alone
        const bool second = P::kValues == 2 && key + 1 >= skipped && key + 1 < count;
        const uint16_t* from = reinterpret_cast<const uint16_t*>(rows[key + P::kValues - 1]);
        std::fill(to, to + width, 0u);
        for (int64_t i = 0; second && i < head_dim; ++i) to[i] = static_cast<uint32_t>(from[i]) << 16;
      }
      if (next) {
        for (int i = 0; i < P::kValues; ++i) fetch(next[key + i], head_dim);
      }
    }
  }

  // Some rows over one tile of keys.
  void tile_rows(int64_t row, int64_t rows, int64_t tile, int64_t count, bool fresh, const State& state) {
    const int64_t width = b_.width(), columns = (count + kLanes - 1) / kLanes * kLanes;
    multiply_tile<P>(rows, query_ + row * steps_, steps_, keys_, kKeys, steps_, nullptr, scores_, kKeys,
                     columns);
    float factors[kTileRows];
    for (int64_t r = 0; r < rows; ++r) {
      factors[r] = softmax(row + r, scores_ + r * kKeys, tile, columns,
                           weights_ + r * (kKeys / P::kValues), state);
    }
    multiply_tile<P>(rows, weights_, kKeys / P::kValues, values_, width,
                     (count + P::kValues - 1) / P::kValues, fresh ? nullptr : factors,
                     state.sums + row * width, width, width);
  }

  // Scores of a row to weights; returns what the sums so far are to be multiplied by.
  float softmax(int64_t row, float* scores, int64_t tile, int64_t columns, uint32_t* weights,
                const State& state) {
    const int64_t group = b_.group(), position = item_->position + row / group;
    const int64_t first = b_.first_visible(position);
    const bool all = tile >= first && tile + columns <= position + 1;
    const float slope = b_.slopes ? b_.slopes[item_->kv_head * group + row % group] : 0;
    Floats top = splat(kNothing);
    for (int64_t i = 0; i < columns; i += kLanes) {
      Floats x = load<Floats>(scores + i) * splat(b_.scale);
      if (b_.softcap != 0) x = capped(x);
      if (!all || b_.slopes) {
        const Ints at = splat(static_cast<int32_t>(tile + i)) + lanes();
        const Ints ahead = at - splat(static_cast<int32_t>(position));
        if (b_.slopes) x += splat(slope) * __builtin_convertvector(ahead, Floats);
        const Ints seen = (ahead <= 0) & (at >= splat(static_cast<int32_t>(first)));
        x = seen ? x : splat(kNothing);
      }
      store(scores + i, x);
      top = x > top ? x : top;
    }
    const float before = state.top[row], highest = max_of(top);
    const float now = highest > before ? highest : before;
    const Floats base = splat(finite_or_zero(now));
    Floats sum{};
    for (int64_t i = 0; i < columns; i += kLanes) {
      const Floats x = exp_of(load<Floats>(scores + i) - base);
      sum += x;
      P::weights(x, weights + i / P::kValues);
    }
    const float factor = now == before ? 1.0f : exp_of(before - base[0]);
    state.top[row] = now;
    state.weight[row] = state.weight[row] * factor + sum_of(sum);
    return factor;
  }

  Floats capped(Floats x) const {  // softcap * tanh(x / softcap)
    const Floats grown = exp_of(x * splat(2.0f / b_.softcap));
    return splat(b_.softcap) - splat(2.0f * b_.softcap) / (grown + splat(1.0f));
  }

  static Ints lanes() {
    Ints numbers;
    UNROLL for (int i = 0; i < kLanes; ++i) numbers[i] = i;
    return numbers;
  }

  const Batch& b_;
  const Item* item_ = nullptr;
  int64_t rows_ = 0;
  int64_t steps_;     // of a product over head_dim
  uint32_t* query_;   // [rows][steps]
  uint32_t* keys_;    // [steps][kKeys]
  uint32_t* values_;  // [kKeys / kValues][width]
  float* scores_;     // [kTileRows][kKeys]
  uint32_t* weights_;
  State total_, later_;
};

// The batch's items, the ones with most keys of a sequence first.
std::vector<Item> items_of(const Batch& batch) {
  std::vector<Item> items;
  const int64_t most = batch.most_rows() / batch.group();  // tokens
  for (int64_t s = 0; s < batch.sequences; ++s) {
    const int64_t first = batch.query_start[s], end = batch.query_start[s + 1];
    for (int64_t stop = end; stop > first; stop -= std::min(most, stop - first)) {
      const int64_t token = std::max(first, stop - most);
      const int64_t position = batch.lengths[s] - (end - token);
      const int64_t first_span = batch.first_visible(position) / kSpan;
      const int64_t spans = (position + (stop - token) - 1) / kSpan + 1 - first_span;
      for (int64_t head = 0; head < batch.kv_heads; ++head) {
        items.push_back({s, head, token, stop - token, position, first_span, spans, -1});
      }
    }
  }
  return items;
}

template <class P>
void attend(const Batch& batch, int threads) {
  std::vector<Item> items = items_of(batch), tasks;
  std::vector<float> parts;
  // With few items their spans are shared out too.
  if (threads > 1 && items.size() < static_cast<size_t>(4 * threads)) {
    int64_t used = 0;
    for (Item& item : items) {
      if (item.spans == 1) {
        tasks.push_back(item);
        continue;
      }
      item.part = used;
      for (int64_t i = 0; i < item.spans; ++i) {
        Item task = item;
        task.first_span += i;
        task.spans = 1;
        task.part = used++;
        tasks.push_back(task);
      }
    }
    parts.resize(used * State::size(batch.most_rows(), batch.width()));
  }
  const std::vector<Item>& run = tasks.empty() ? items : tasks;
  const auto each = [&](const std::vector<Item>& list, const auto& action) {
    parallel_for(static_cast<int64_t>(list.size()), threads, [&](int64_t i) {
      static thread_local Scratch scratch;
      Worker<P> worker(batch, scratch);
      action(worker, list[i]);
    });
  };
  each(run, [&](Worker<P>& worker, const Item& item) { worker.run(item, parts.data()); });
  if (!parts.empty()) {
    each(items, [&](Worker<P>& worker, const Item& item) {
      if (item.part >= 0) worker.finish(item, parts.data());
    });
  }
}

}  // namespace

// out[tokens][heads][head_dim]; see the reference for what is computed.
struct PagedAttention {
  int64_t kind;
  const void *query, *cache;
  const int32_t *query_start, *lengths, *tables;
  const float* slopes;  // or null
  void* out;
  int64_t token_stride, head_stride;  // of queries, in elements
  int64_t table_stride, sequences, num_blocks, heads, kv_heads, block_size, head_dim;
  int64_t window;  // 0: none
  double scale;
  double softcap;  // 0: none
  int64_t threads;
};

extern "C" int64_t quire_paged_attention(const PagedAttention* a) {
  Batch batch;
  batch.query = static_cast<const char*>(a->query);
  batch.token_stride = a->token_stride;
  batch.head_stride = a->head_stride;
  batch.cache = static_cast<const char*>(a->cache);
  batch.out = static_cast<char*>(a->out);
  batch.query_start = a->query_start;
  batch.lengths = a->lengths;
  batch.tables = a->tables;
  batch.table_stride = a->table_stride;
  batch.sequences = a->sequences;
  batch.num_blocks = a->num_blocks;
  batch.heads = a->heads;
  batch.kv_heads = a->kv_heads;
  batch.block_size = a->block_size;
  batch.head_dim = a->head_dim;
  batch.scale = static_cast<float>(a->scale);
  batch.softcap = static_cast<float>(a->softcap);
  batch.window = a->window;
  batch.slopes = a->slopes;
  with_type(static_cast<int>(a->kind), [&](auto type) {
    attend<Product<decltype(type)>>(batch, a->threads);
  });
  return 0;
}

}  // namespace quire
