// Linear layers over packed float weights: bfloat16 [N/16][K/2][16][2], float16 and float32 [N/16][K][16].
// Products are added up in float32.
#include "packed.h"

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

  int64_t steps() const { return num_steps; }
  int64_t round_up(int64_t steps) const { return steps; }
  int64_t block_bytes() const { return num_steps * kStepBytes; }
  static constexpr int64_t kStepBytes = kBlock * kValues * kBytes;
  const X* inputs(int64_t row, Span span) const {
    return x + row * row_stride + span.begin * kValues;
  }
  const char* block_at(int64_t block, Span span) const {
    return weights + block * block_bytes() + span.begin * kStepBytes;
  }
};

#if defined(__AVX512BF16__)
// Pairs of products by one instruction.
struct Bfloat16Dot : Packed<uint16_t, 2, 2> {
  template <int R, int C>
  static void tile(const Bfloat16Dot& p, int64_t row, int64_t block, Span span, Fetch ahead,
                   float* sums) {
    const uint16_t* x = p.inputs(row, span);
    const char* w = p.block_at(block, span);
    const char* fetch = w + ahead.offset;
    const int64_t stride = p.row_stride, bytes = p.block_bytes();
    __m512 acc[R][C];
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int c = 0; c < C; ++c) {
        acc[r][c] = span.begin ? _mm512_loadu_ps(sums + (r * C + c) * kBlock) : _mm512_setzero_ps();
      }
    }
    for (int64_t s = span.begin; s < span.end; ++s) {
      __m512bh weights[C];
      UNROLL for (int c = 0; c < C; ++c) {
        weights[c] = (__m512bh)_mm512_loadu_si512(w + c * bytes);
        _mm_prefetch(fetch + c * bytes, _MM_HINT_T0);
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
      fetch += ahead.stride;
      x += 2;
    }
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int c = 0; c < C; ++c) _mm512_storeu_ps(sums + (r * C + c) * kBlock, acc[r][c]);
    }
  }
};
#endif

// Activations in float32, weights widened in registers. `Widen::get(w, part, i)`: the weights of input i
// of a step.
template <class Widen>
struct Widened : Packed<float, Widen::kValues, Widen::kBytes> {
  using Base = Packed<float, Widen::kValues, Widen::kBytes>;
  template <int R, int C>
  static void tile(const Widened& p, int64_t row, int64_t block, Span span, Fetch ahead,
                   float* sums) {
    const float* x = p.inputs(row, span);
    const char* w = p.block_at(block, span);
    const char* fetch = w + ahead.offset;
    const int64_t stride = p.row_stride, bytes = p.block_bytes();
    Floats acc[R][C][kParts];
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int i = 0; i < C * kParts; ++i) {
        acc[r][i / kParts][i % kParts] =
            span.begin ? load<Floats>(sums + r * C * kBlock + i * kLanes) : Floats{};
      }
    }
    for (int64_t s = span.begin; s < span.end; ++s) {
      UNROLL for (int i = 0; i < Widen::kValues; ++i) {
        Floats weights[C][kParts];
        UNROLL for (int c = 0; c < C; ++c) {
          UNROLL for (int part = 0; part < kParts; ++part) {
            weights[c][part] = Widen::get(w + c * bytes, part, i);
          }
          __builtin_prefetch(fetch + c * bytes);
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
      fetch += ahead.stride;
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
         const Finish& finish) {
  const int64_t steps = (inputs + kValues - 1) / kValues, padded = steps * kValues;
  P product;
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

}  // namespace quire
