// Linear layers over int8 weights, with activations quantized as they come: one scale for each group of 32
// inputs of an output's weights and of a row of activations, so that one large value costs the precision of
// its group alone. Weights are packed as [N/16][K/4][16][4] and stored with 128 added, since the instruction for
// sums of four products wants one unsigned factor; 128 times the sum of a group's activations is taken
// off where a group's sum begins. Sums within a group are of integers, and exact.
#include "packed.h"

namespace quire {
namespace {

constexpr int kGroupSteps = kGroup / 4;

#if defined(__AVX512VNNI__)
inline Ints dot(Ints sum, Ints weights, Ints inputs) {
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)inputs);
}
#elif defined(__AVX512BW__)
inline Ints dot(Ints sum, Ints weights, Ints inputs) {
  const __m512i w = (__m512i)weights, x = (__m512i)inputs;
  const __m512i even = _mm512_and_si512(w, _mm512_set1_epi16(255)), odd = _mm512_srli_epi16(w, 8);
  const __m512i x_even = _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), x_odd = _mm512_srai_epi16(x, 8);
  return sum + (Ints)_mm512_madd_epi16(even, x_even) + (Ints)_mm512_madd_epi16(odd, x_odd);
}
#elif defined(__AVXVNNI__)
inline Ints dot(Ints sum, Ints weights, Ints inputs) {
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, (__m256i)inputs);
}
#elif defined(__AVX2__)
inline Ints dot(Ints sum, Ints weights, Ints inputs) {
  const __m256i w = (__m256i)weights, x = (__m256i)inputs;
  const __m256i even = _mm256_and_si256(w, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(w, 8);
  const __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), x_odd = _mm256_srai_epi16(x, 8);
  return sum + (Ints)_mm256_madd_epi16(even, x_even) + (Ints)_mm256_madd_epi16(odd, x_odd);
}
#else
inline Ints dot(Ints sum, Ints weights, Ints inputs) {
  UNROLL for (int i = 0; i < 4; ++i) {
    sum += ((weights >> 8 * i) & 255) * ((inputs << (24 - 8 * i)) >> 24);
  }
  return sum;
}
#endif

// a * b + c, rounded once, whatever the compiler would make of it.
inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  UNROLL for (int i = 0; i < kLanes; ++i) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
#endif
}

struct Int8Dot {
  const int8_t* x;         // [rows][groups * 32]
  const float* scales;     // [rows][groups]
  const int32_t* offsets;  // [rows][groups]: what the weights' 128 adds to a group's sums, negated
  const char* weights;
  const bfloat16* weight_scales;  // [N/16][groups][16]
  int64_t num_steps, groups;

  using Dot = Int8Dot;
  using Rest = Dot;
  static constexpr int64_t kStepBytes = kBlock * 4, kStoredStepBytes = kStepBytes;
  int64_t steps() const { return num_steps; }
  int64_t block_bytes() const { return num_steps * kStepBytes; }
  const char* stored_at(int64_t block, int64_t step) const {
    return weights + block * block_bytes() + step * kStepBytes;
  }
  Weights weights_of(int64_t block, int64_t, Span span) const {
    return {stored_at(block, span.begin), block_bytes()};
  }
  int64_t round_up(int64_t steps) const {
    return (steps + kGroupSteps - 1) / kGroupSteps * kGroupSteps;
  }

  const Rest& rest() const { return *this; }
  Weights weights_of_rest(Weights first, int64_t, Span) const { return first; }

  template <int R, int C>
  static void tile(const Int8Dot& p, int64_t row, int64_t block, Weights stored, Span span, Fetch ahead,
                   float* sums) {
    const int64_t bytes = stored.block_bytes, stride = p.groups * kGroup;
    const char* w = stored.at;
    const char* fetch = ahead.from;
    const int8_t* x = p.x + row * stride + span.begin * 4;
    if (span.begin == 0) std::fill(sums, sums + R * C * kBlock, 0.0f);
    for (int64_t begin = span.begin; begin < span.end; begin += kGroupSteps) {
      const int64_t group = row * p.groups + begin / kGroupSteps;
      const int64_t end = std::min(begin + kGroupSteps, span.end);
      Ints acc[R][C][kParts];
      UNROLL for (int r = 0; r < R; ++r) {
        UNROLL for (int i = 0; i < C * kParts; ++i) {
          acc[r][i / kParts][i % kParts] = splat(p.offsets[group + r * p.groups]);
        }
      }
      for (int64_t s = begin; s < end; ++s) {
        if (s == ahead.jump_at) fetch += ahead.jump;
        Ints weights[C][kParts];
        UNROLL for (int c = 0; c < C; ++c) {
          UNROLL for (int part = 0; part < kParts; ++part) {
            weights[c][part] = load<Ints>(w + c * bytes + part * sizeof(Ints));
          }
          __builtin_prefetch(fetch + c * ahead.block_bytes);
        }
        UNROLL for (int r = 0; r < R; ++r) {
          const Ints inputs = splat(load<int32_t>(x + r * stride));
          UNROLL for (int c = 0; c < C; ++c) {
            UNROLL for (int part = 0; part < kParts; ++part) {
              acc[r][c][part] = dot(acc[r][c][part], weights[c][part], inputs);
            }
          }
        }
        w += kStepBytes;
        fetch += ahead.step_bytes;
        x += 4;
      }
      const bfloat16* weight_scales = p.weight_scales + (block * p.groups + begin / kGroupSteps) * kBlock;
      Floats scales[C * kParts];
      UNROLL for (int i = 0; i < C * kParts; ++i) {
        const int64_t at = i / kParts * p.groups * kBlock + i % kParts * kLanes;
        scales[i] = widen(weight_scales + at);
      }
      UNROLL for (int r = 0; r < R; ++r) {
        const Floats scale = splat(p.scales[group + r * p.groups]);
        UNROLL for (int i = 0; i < C * kParts; ++i) {
          float* at = sums + r * C * kBlock + i * kLanes;
          const Floats sum = __builtin_convertvector(acc[r][i / kParts][i % kParts], Floats);
          store(at, load<Floats>(at) + sum * (scales[i] * scale));
        }
      }
    }
  }
};

// One row of activations: values, and for each group its scale and offset. A group's largest value becomes
// 127 or -127; where it is infinite or NaN so is the scale, and with it every sum.
void quantize_row(Kind kind, const void* x, int64_t row, int64_t inputs, int64_t groups, float* wide,
                  int8_t* to, float* scales, int32_t* offsets) {
  widen(kind, x, row * inputs, inputs, wide);
  std::fill(wide + inputs, wide + groups * kGroup, 0.0f);
  for (int64_t g = 0; g < groups; ++g) {
    const float* from = wide + g * kGroup;
    Ints most{};
    for (int i = 0; i < kGroup; i += kLanes) {
      const Ints size = load<Ints>(from + i) & 0x7fffffff;  // as integers, the bits have the same order
      most = size > most ? size : most;
    }
    int32_t bits = 0;
    for (int lane = 0; lane < kLanes; ++lane) bits = std::max<int32_t>(bits, most[lane]);
    const float largest = load<float>(&bits);
    const float scale = largest / 127.0f, factor = scale > 0 ? 1.0f / scale : 0.0f;
    Words sum{};  // unsigned, since what NaN leaves in the bits overflows
    int32_t rounded[kGroup];
    for (int i = 0; i < kGroup; i += kLanes) {
      // Added to 1.5 * 2^23, a number is rounded to an integer, which then stands in the lowest bits.
      const Floats shifted = fused(load<Floats>(from + i), splat(factor), splat(12582912.0f));
      const Ints value = (Ints)shifted - 0x4b400000;
      sum += (Words)value;
      store(rounded + i, value);
    }
    for (int i = 0; i < kGroup; ++i) to[g * kGroup + i] = static_cast<int8_t>(rounded[i]);
    uint32_t total = 0;
    for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
    scales[g] = scale;
    offsets[g] = static_cast<int32_t>(-kOffset * total);
  }
}

}  // namespace

// out[rows][columns] = x[rows][inputs] . weights + bias. x and bias (or null) are of `kind`, `out` of
// `out_kind`; scales of the weights: [columns / 16][groups][16].
struct Int8Linear {
  int64_t kind;
  const void* x;
  int64_t rows;
  const void* weights;
  const bfloat16* scales;
  const void* bias;
  int64_t out_kind;
  void* out;
  int64_t inputs, columns, threads;
};

extern "C" int64_t quire_int8_linear(const Int8Linear* a) {
  static thread_local std::vector<int8_t> values;
  static thread_local std::vector<float> row_scales;
  static thread_local std::vector<int32_t> row_offsets;
  const Kind kind = static_cast<Kind>(a->kind);
  const int64_t rows = a->rows, inputs = a->inputs, groups = (inputs + kGroup - 1) / kGroup;
  const int threads = static_cast<int>(a->threads);
  values.resize(std::max<size_t>(values.size(), rows * groups * kGroup));
  row_scales.resize(std::max<size_t>(row_scales.size(), rows * groups));
  row_offsets.resize(std::max<size_t>(row_offsets.size(), rows * groups));
  int8_t* to = values.data();
  float* to_scales = row_scales.data();
  int32_t* to_offsets = row_offsets.data();
  parallel_rows(rows, rows * inputs, threads, [&](int64_t r) {
    static thread_local std::vector<float> wide;
    wide.resize(std::max<size_t>(wide.size(), groups * kGroup));
    quantize_row(kind, a->x, r, inputs, groups, wide.data(), to + r * groups * kGroup,
                 to_scales + r * groups, to_offsets + r * groups);
  });
  const Int8Dot product{to, to_scales, to_offsets, static_cast<const char*>(a->weights), a->scales,
                        (inputs + 3) / 4, groups};
  const Finish finish{kind, a->bias, static_cast<Kind>(a->out_kind), static_cast<char*>(a->out), a->columns};
  multiply(product, rows, a->columns, threads, finish);
  return 0;
}

}  // namespace quire
