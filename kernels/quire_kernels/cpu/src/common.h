// What every kernel stands on: vectors of the widest registers that the compiler was told of, and the three
// float dtypes. It knows no operation.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quire {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));

#define UNROLL _Pragma("GCC unroll 16")

enum Kind { kBfloat16 = 0, kFloat16 = 1, kFloat32 = 2 };

inline float from_bfloat16(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &word, 4);
  return x;
}

inline uint16_t to_bfloat16(float x) {
  uint32_t word;
  std::memcpy(&word, &x, 4);
  if ((word & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(word >> 16 | 0x40);  // NaN
  return static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

#if defined(__F16C__) || defined(__AVX512F__)
inline float from_float16(uint16_t bits) { return _cvtsh_ss(bits); }
inline uint16_t to_float16(float x) { return static_cast<uint16_t>(_cvtss_sh(x, 0)); }
#elif defined(__FLT16_MAX__) || defined(__ARM_FP16_FORMAT_IEEE)
inline float from_float16(uint16_t bits) {
  _Float16 x;
  std::memcpy(&x, &bits, 2);
  return static_cast<float>(x);
}
inline uint16_t to_float16(float x) {
  const _Float16 half = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
#endif

inline float read(Kind kind, const void* from, int64_t i) {
  if (kind == kFloat32) return static_cast<const float*>(from)[i];
  const uint16_t bits = static_cast<const uint16_t*>(from)[i];
  return kind == kBfloat16 ? from_bfloat16(bits) : from_float16(bits);
}

inline void write(Kind kind, void* to, int64_t i, float x) {
  if (kind == kFloat32) {
    static_cast<float*>(to)[i] = x;
  } else {
    static_cast<uint16_t*>(to)[i] = kind == kBfloat16 ? to_bfloat16(x) : to_float16(x);
  }
}

// `count` numbers from `first` on, in float32.
inline void widen(Kind kind, const void* from, int64_t first, int64_t count, float* to) {
  if (kind == kFloat32) {
    std::memcpy(to, static_cast<const float*>(from) + first, count * 4);
  } else if (kind == kBfloat16) {
    for (int64_t i = 0; i < count; ++i) to[i] = read(kBfloat16, from, first + i);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = read(kFloat16, from, first + i);
  }
}

template <class V>
inline V load(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V>
inline void store(void* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

inline Floats splat(float x) { return x - Floats{}; }  // a sum with 0 would not keep -0
inline Ints splat(int32_t x) { return Ints{} + x; }

}  // namespace quire
