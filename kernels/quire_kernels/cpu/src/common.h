// What every kernel stands on: vectors of the widest registers that the compiler was told of, and the three
// float dtypes. It knows no operation.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pool.h"

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

// The dtypes as types, for code that is made once for each.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

inline Floats widen(const float* from) { return load<Floats>(from); }
inline Floats widen(const bfloat16* from) {
  return (Floats)(__builtin_convertvector(load<Halves>(from), Words) << 16);
}
inline void narrow(Floats x, float* to) { store(to, x); }
#if defined(__AVX512BF16__)
inline void narrow(Floats x, bfloat16* to) { store(to, _mm512_cvtneps_pbh((__m512)x)); }
#else
inline void narrow(Floats x, bfloat16* to) {
  const Words word = (Words)x;
  const Words rounded = (word + 0x7fff + (word >> 16 & 1)) >> 16;
  const Words quiet = word >> 16 | 0x40;
  store(to, __builtin_convertvector((Ints)(word & 0x7fffffff) > 0x7f800000 ? quiet : rounded, Halves));
}
#endif
#if defined(__AVX512F__)
inline Floats widen(const float16* from) { return (Floats)_mm512_cvtph_ps(load<__m256i>(from)); }
inline void narrow(Floats x, float16* to) { store(to, _mm512_cvtps_ph((__m512)x, 0)); }
#elif defined(__AVX2__) && defined(__F16C__)
inline Floats widen(const float16* from) { return (Floats)_mm256_cvtph_ps(load<__m128i>(from)); }
inline void narrow(Floats x, float16* to) { store(to, _mm256_cvtps_ph((__m256)x, 0)); }
#else
inline Floats widen(const float16* from) {
  Floats x;
  for (int i = 0; i < kLanes; ++i) x[i] = from_float16(from[i].bits);
  return x;
}
inline void narrow(Floats x, float16* to) {
  for (int i = 0; i < kLanes; ++i) to[i].bits = to_float16(x[i]);
}
#endif

// The first `count` lanes; the rest are zero.
template <class T>
inline Floats widen(const T* from, int64_t count) {
  if (count >= kLanes) return widen(from);
  T some[kLanes] = {};
  std::memcpy(some, from, count * sizeof(T));
  return widen(some);
}
template <class T>
inline void narrow(Floats x, T* to, int64_t count) {
  if (count >= kLanes) return narrow(x, to);
  T some[kLanes];
  narrow(x, some);
  std::memcpy(to, some, count * sizeof(T));
}

// Runs `body(T{})` with the type of a kind.
template <class Body>
inline void with_type(int64_t kind, const Body& body) {
  if (kind == kBfloat16) {
    body(bfloat16{});
  } else if (kind == kFloat16) {
    body(float16{});
  } else {
    body(float{});
  }
}

// Sums and maxima over the lanes, halves first.
template <int kHalf>
inline Floats other_half(Floats x) {
  Ints from;
  UNROLL for (int i = 0; i < kLanes; ++i) from[i] = i ^ kHalf;
  return __builtin_shuffle(x, from);
}
template <int kHalf = kLanes / 2>
inline float sum_of(Floats x) {
  x += other_half<kHalf>(x);
  if constexpr (kHalf > 1) return sum_of<kHalf / 2>(x);
  return x[0];
}
template <int kHalf = kLanes / 2>
inline float max_of(Floats x) {
  const Floats y = other_half<kHalf>(x);
  x = y > x ? y : x;
  if constexpr (kHalf > 1) return max_of<kHalf / 2>(x);
  return x[0];
}

// e^x within 2 units in the last place (the polynomial of Cephes' expf); 0 below -87.3, about 1e38 above 88.
// NaN stays NaN, and e^0 is 1 exactly.
inline Floats exp_of(Floats x) {
  const Floats held = x > splat(88.0f) ? splat(88.0f) : x;
  const Floats shifted = held * splat(1.44269504f) + splat(12582912.0f);  // rounds to an integer
  const Floats n = shifted - splat(12582912.0f);
  const Floats r = held - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
  Floats p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * (r * r) + (r + splat(1.0f));
  const Floats scaled = (Floats)((Words)p + (((Words)shifted - 0x4b400000) << 23));
  const Floats kept = x < splat(-87.3f) ? Floats{} : scaled;
  return x == x ? kept : x;
}
inline float exp_of(float x) { return exp_of(splat(x))[0]; }

}  // namespace quire
