// Linear layers over packed float weights: bfloat16 [N/16][K/2][16][2], float16 and float32 [N/16][K][16]; and
// over squeezed ones, which become packed bfloat16 a few steps at a time. Products are added up in float32.
#include "packed.h"
#include "squeezed.h"

namespace quire {
namespace {

inline Floats low_halves(Words w) { return (Floats)(w << 16); }
inline Floats high_halves(Words w) { return (Floats)(w & 0xffff0000u); }

// What the kinds of weights have in common: where things lie.
template <class X, int kValues, int kBytes>  // activations; inputs in a step; bytes of a weight
struct Packed {
  const X* x;
  int64_t row_stride;  // of x, in elements
  const char* weights;
  int64_t num_steps;

  static constexpr int64_t kStepBytes = kBlock * kValues * kBytes, kStoredStepBytes = kStepBytes;
  int64_t steps() const { return num_steps; }
  int64_t round_up(int64_t steps) const { return steps; }
  int64_t block_bytes() const { return num_steps * kStepBytes; }
  const X* inputs(int64_t row, Span span) const {
    return x + row * row_stride + span.begin * kValues;
  }
  const char* stored_at(int64_t block, int64_t step) const {
    return weights + block * block_bytes() + step * kStepBytes;
  }
  Weights weights_of(int64_t block, int64_t, Span span) const {
    return {stored_at(block, span.begin), block_bytes()};
  }
  Weights weights_of_rest(Weights first, int64_t, Span) const { return first; }
};

#if defined(__AVX512BF16__)
// Pairs of products by one instruction.
struct Bfloat16Dot : Packed<uint16_t, 2, 2> {
  using Dot = Bfloat16Dot;
  using Rest = Dot;
  const Rest& rest() const { return *this; }
  template <int R, int C>
  static void tile(const Bfloat16Dot& p, int64_t row, int64_t, Weights stored, Span span, Fetch ahead,
                   float* sums) {
    const uint16_t* x = p.inputs(row, span);
    const char* w = stored.at;
    const char* fetch = ahead.from;
    const int64_t stride = p.row_stride, bytes = stored.block_bytes;
    __m512 acc[R][C];
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int c = 0; c < C; ++c) {
        acc[r][c] = span.begin ? _mm512_loadu_ps(sums + (r * C + c) * kBlock) : _mm512_setzero_ps();
      }
    }
    for (int64_t s = span.begin; s < span.end; ++s) {
      if (s == ahead.jump_at) fetch += ahead.jump;
      __m512bh weights[C];
      UNROLL for (int c = 0; c < C; ++c) {
        weights[c] = (__m512bh)_mm512_loadu_si512(w + c * bytes);
        _mm_prefetch(fetch + c * ahead.block_bytes, _MM_HINT_T0);
      }
      UNROLL for (int r = 0; r < R; ++r) {
        int32_t pair;
        std::memcpy(&pair, x + r * stride, 4);
        const __m512bh inputs = (__m512bh)_mm512_set1_epi32(pair);
        UNROLL for (int c = 0; c < C; ++c) {
          acc[r][c] = _mm512_dpbf16_ps(acc[r][c], weights[c], inputs);
        }
      }
      w += kStepBytes;
      fetch += ahead.step_bytes;
      x += 2;
    }
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int c = 0; c < C; ++c) _mm512_storeu_ps(sums + (r * C + c) * kBlock, acc[r][c]);
    }
  }
};

// The same of squeezed weights. A unit's first tile unfolds them as it goes, while products wait for each other, and
// where others follow it leaves them what it unfolded.
struct SqueezedDot : Packed<uint16_t, 2, 2> {
  using Dot = SqueezedDot;
  using Rest = Bfloat16Dot;
  static constexpr int64_t kStoredStepBytes = kGroupBytes / kGroupSteps;
  Record sizes{0};
  bool keeps = false;  // what was unfolded

  int64_t block_bytes() const { return sizes.bytes(); }
  int64_t round_up(int64_t steps) const { return (steps + kGroupSteps - 1) / kGroupSteps * kGroupSteps; }
  const char* stored_at(int64_t block, int64_t step) const {
    return weights + block * sizes.bytes() + sizes.head_bytes + step * kStoredStepBytes;
  }
  Weights weights_of(int64_t block, int64_t, Span span) const {
    return {stored_at(block, span.begin), block_bytes()};
  }
  Rest rest() const { return {static_cast<const Packed&>(*this)}; }
  // The same in the packed layout, once the first tile is done.
  Weights weights_of_rest(Weights, int64_t blocks, Span span) const {
    struct alignas(kStepBytes) Step {
      char bytes[kStepBytes];
    };
    static thread_local std::vector<Step> memory;
    const int64_t steps = span.end - span.begin;
    memory.resize(std::max<size_t>(memory.size(), blocks * steps));
    return {memory.data()->bytes, steps * kStepBytes};
  }

  template <int R, int C>
  static void tile(const SqueezedDot& p, int64_t row, int64_t block, Weights stored, Span span, Fetch ahead,
                   float* sums) {
    constexpr bool kInMemory = R * C >= 12;  // since sums take the registers
    const uint16_t* x = p.inputs(row, span);
    const char* w = stored.at;
    const char* fetch = ahead.from;
    const int64_t stride = p.row_stride, bytes = stored.block_bytes;
    const int64_t fetch_line = ahead.step_bytes * kGroupSteps / 3;
    alignas(64) char one_group[C * kGroupSteps * kStepBytes];
    const Weights kept = p.keeps ? p.weights_of_rest(stored, C, span) : Weights{one_group, kGroupSteps * kStepBytes};
    char* to = const_cast<char*>(kept.at);
    __m512i uppers[C];
    Patches patches[C];
    __m512 acc[R][C];
    UNROLL for (int c = 0; c < C; ++c) {
      const Head* head = p.head_of(block + c);
      uppers[c] = uppers_of(head->base);
      patches[c] = Patches(head, span.begin / kGroupSteps);
      UNROLL for (int r = 0; r < R; ++r) {
        acc[r][c] = span.begin ? _mm512_loadu_ps(sums + (r * C + c) * kBlock) : _mm512_setzero_ps();
      }
    }
    for (int64_t group = span.begin / kGroupSteps; group < span.end / kGroupSteps; ++group) {
      if (group * kGroupSteps == ahead.jump_at) fetch += ahead.jump;
      __m512i steps[C][kGroupSteps];
      UNROLL for (int c = 0; c < C; ++c) {
        unfold(w + c * bytes, uppers[c], steps[c]);
        patches[c].apply(group, steps[c]);
        if (kInMemory || p.keeps) {
          UNROLL for (int s = 0; s < kGroupSteps; ++s) {
            _mm512_store_si512(to + c * kept.block_bytes + s * kStepBytes, steps[c][s]);
          }
        }
        UNROLL for (int line = 0; line < 3; ++line) {
          _mm_prefetch(fetch + c * ahead.block_bytes + line * fetch_line, _MM_HINT_T0);
        }
      }
      if (kInMemory) asm volatile("" ::: "memory");
      UNROLL for (int s = 0; s < kGroupSteps; ++s) {
        __m512bh weights[C];
        UNROLL for (int c = 0; c < C; ++c) {
          weights[c] = (__m512bh)(kInMemory ? _mm512_load_si512(to + c * kept.block_bytes + s * kStepBytes)
                                            : steps[c][s]);
        }
        UNROLL for (int r = 0; r < R; ++r) {
          int32_t pair;
          std::memcpy(&pair, x + r * stride + s * 2, 4);
          const __m512bh inputs = (__m512bh)_mm512_set1_epi32(pair);
          UNROLL for (int c = 0; c < C; ++c) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], weights[c], inputs);
        }
      }
      if (p.keeps) to += kGroupSteps * kStepBytes;
      w += kGroupBytes;
      fetch += 3 * fetch_line;
      x += 2 * kGroupSteps;
    }
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int c = 0; c < C; ++c) _mm512_storeu_ps(sums + (r * C + c) * kBlock, acc[r][c]);
    }
  }
  const Head* head_of(int64_t block) const {
    return reinterpret_cast<const Head*>(weights + block * sizes.bytes());
  }
};
#endif

// Activations in float32, weights widened in registers. `Widen::get(w, part, i)`: the weights of input i
// of a step.
template <class Widen>
struct Widened : Packed<float, Widen::kValues, Widen::kBytes> {
  using Base = Packed<float, Widen::kValues, Widen::kBytes>;
  using Dot = Widened;
  using Rest = Dot;
  const Rest& rest() const { return *this; }
  template <int R, int C>
  static void tile(const Widened& p, int64_t row, int64_t, Weights stored, Span span, Fetch ahead,
                   float* sums) {
    const float* x = p.inputs(row, span);
    const char* w = stored.at;
    const char* fetch = ahead.from;
    const int64_t stride = p.row_stride, bytes = stored.block_bytes;
    Floats acc[R][C][kParts];
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int i = 0; i < C * kParts; ++i) {
        acc[r][i / kParts][i % kParts] =
            span.begin ? load<Floats>(sums + r * C * kBlock + i * kLanes) : Floats{};
      }
    }
    for (int64_t s = span.begin; s < span.end; ++s) {
      if (s == ahead.jump_at) fetch += ahead.jump;
      UNROLL for (int i = 0; i < Widen::kValues; ++i) {
        Floats weights[C][kParts];
        UNROLL for (int c = 0; c < C; ++c) {
          UNROLL for (int part = 0; part < kParts; ++part) {
            weights[c][part] = Widen::get(w + c * bytes, part, i);
          }
          __builtin_prefetch(fetch + c * ahead.block_bytes);
        }
        UNROLL for (int r = 0; r < R; ++r) {
          const Floats input = splat(x[r * stride + i]);
          UNROLL for (int c = 0; c < C; ++c) {
            UNROLL for (int part = 0; part < kParts; ++part) {
              acc[r][c][part] += weights[c][part] * input;
            }
          }
        }
      }
      w += Base::kStepBytes;
      fetch += ahead.step_bytes;
      x += Widen::kValues;
    }
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int i = 0; i < C * kParts; ++i) {
        store(sums + r * C * kBlock + i * kLanes, acc[r][i / kParts][i % kParts]);
      }
    }
  }
};

#if !defined(__AVX512BF16__)
struct FromBfloat16 {
  static constexpr int kValues = 2, kBytes = 2;
  static Floats get(const char* w, int part, int i) {
    const Words pairs = load<Words>(w + part * sizeof(Words));
    return i ? high_halves(pairs) : low_halves(pairs);
  }
};
#endif

struct FromFloat16 {
  static constexpr int kValues = 1, kBytes = 2;
  static Floats get(const char* w, [[maybe_unused]] int part, int) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_cvtph_ps(0xffff, load<__m256i>(w));
#elif defined(__AVX2__)
    return (Floats)_mm256_cvtph_ps(load<__m128i>(w + part * 16));
#else
    Floats values;
    for (int lane = 0; lane < kLanes; ++lane) {
      values[lane] = read(kFloat16, w, part * kLanes + lane);
    }
    return values;
#endif
  }
};

struct FromFloat32 {
  static constexpr int kValues = 1, kBytes = 4;
  static Floats get(const char* w, int part, int) { return load<Floats>(w + part * sizeof(Floats)); }
};

// Activations as a product wants them: in its own dtype, with rows a multiple of its step.
template <class X>
const X* prepared(Kind kind, const void* x, int64_t rows, int64_t inputs, int64_t padded, int threads) {
  const bool same = sizeof(X) == 2 || kind == kFloat32;
  if (same && inputs == padded) return static_cast<const X*>(x);
  static thread_local std::vector<X> memory;
  memory.resize(std::max<size_t>(memory.size(), rows * padded));
  X* to = memory.data();
  parallel_rows(rows, rows * inputs, threads, [&](int64_t r) {
    if (sizeof(X) == 2) {
      std::memcpy(to + r * padded, static_cast<const X*>(x) + r * inputs, inputs * sizeof(X));
    } else {
      widen(kind, x, r * inputs, inputs, reinterpret_cast<float*>(to + r * padded));
    }
    std::fill(to + r * padded + inputs, to + (r + 1) * padded, X{});
  });
  return to;
}

template <class P, class X, int kValues>
void run(Kind kind, const void* x, int64_t rows, const void* weights, int64_t inputs, int threads,
         const Finish& finish, P product = {}) {
  const int64_t steps = product.round_up((inputs + kValues - 1) / kValues), padded = steps * kValues;
  product.x = prepared<X>(kind, x, rows, inputs, padded, threads);
  product.row_stride = padded;
  product.weights = static_cast<const char*>(weights);
  product.num_steps = steps;
  multiply(product, rows, finish.columns, threads, finish);
}

}  // namespace

// out[rows][columns] = x[rows][inputs] . weights + bias. x, weights and bias (or null) are of `kind`, `out`
// of `out_kind`.
struct PackedLinear {
  int64_t kind;
  const void* x;
  int64_t rows;
  const void *weights, *bias;
  int64_t out_kind;
  void* out;
  int64_t inputs, columns, threads;
};

extern "C" int64_t quire_packed_linear(const PackedLinear* a) {
  const Kind kind = static_cast<Kind>(a->kind);
  const Finish finish{kind, a->bias, static_cast<Kind>(a->out_kind), static_cast<char*>(a->out), a->columns};
  const int threads = static_cast<int>(a->threads);
  if (kind == kBfloat16) {
#if defined(__AVX512BF16__)
    run<Bfloat16Dot, uint16_t, 2>(kind, a->x, a->rows, a->weights, a->inputs, threads, finish);
#else
    run<Widened<FromBfloat16>, float, 2>(kind, a->x, a->rows, a->weights, a->inputs, threads, finish);
#endif
  } else if (kind == kFloat16) {
    run<Widened<FromFloat16>, float, 1>(kind, a->x, a->rows, a->weights, a->inputs, threads, finish);
  } else {
    run<Widened<FromFloat32>, float, 1>(kind, a->x, a->rows, a->weights, a->inputs, threads, finish);
  }
  return 0;
}

#if defined(__AVX512BF16__)
// The same over squeezed weights; all are bfloat16 but `out`.
extern "C" int64_t quire_squeezed_linear(const PackedLinear* a) {
  const Finish finish{kBfloat16, a->bias, static_cast<Kind>(a->out_kind), static_cast<char*>(a->out), a->columns};
  SqueezedDot product;
  product.sizes = Record(a->inputs);
  product.keeps = a->rows > kTileRows;
  run<SqueezedDot, uint16_t, 2>(kBfloat16, a->x, a->rows, a->weights, a->inputs, static_cast<int>(a->threads), finish,
                                product);
  return 0;
}
#endif

}  // namespace quire
