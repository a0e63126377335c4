// Norms, gated activations, rotary positions and what goes into the KV cache. All is computed in float32 and
// rounded once. A row's result depends on nothing but the row.
#include "common.h"

namespace quire {
namespace {

constexpr int64_t kShare = 16384;  // least elements that are worth a second thread

// A matrix of vectors of contiguous elements: strides in elements.
struct Rows {
  int64_t outer, inner, outer_stride, inner_stride;
  int64_t count() const { return outer * inner; }
  int64_t at(int64_t row) const { return row / inner * outer_stride + row % inner * inner_stride; }
};

template <class T, class W>
void rms_norm_row(const T* x, const T* residual, T* total, const W* weight, T* out, int64_t n, float eps) {
  Floats squares[2] = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    Floats v = widen(x + i, n - i);
    if (residual) {
      narrow(v + widen(residual + i, n - i), total + i, n - i);
      v = widen(total + i, n - i);
    }
    squares[i / kLanes % 2] += v * v;
  }
  const float mean = sum_of(squares[0] + squares[1]) / static_cast<float>(n);
  const Floats factor = splat(1.0f / std::sqrt(mean + eps));
  const T* from = residual ? total : x;
  for (int64_t i = 0; i < n; i += kLanes) {
    narrow(widen(from + i, n - i) * factor * widen(weight + i, n - i), out + i, n - i);
  }
}

template <class T, class W>
void layer_norm_row(const T* x, const W* weight, const W* bias, T* out, int64_t n, float eps) {
  Floats sum{}, squares{};
  for (int64_t i = 0; i < n; i += kLanes) sum += widen(x + i, n - i);
  const Floats mean = splat(sum_of(sum) / static_cast<float>(n));
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Floats v = widen(x + i) - mean;
    squares += v * v;
  }
  if (i < n) {
    Floats v = widen(x + i, n - i) - mean;
    for (int64_t lane = n - i; lane < kLanes; ++lane) v[lane] = 0;
    squares += v * v;
  }
  const float variance = sum_of(squares) / static_cast<float>(n);
  const Floats factor = splat(1.0f / std::sqrt(variance + eps));
  for (i = 0; i < n; i += kLanes) {
    const Floats v = (widen(x + i, n - i) - mean) * factor;
    narrow(v * widen(weight + i, n - i) + widen(bias + i, n - i), out + i, n - i);
  }
}

inline Floats sigmoid(Floats x) { return splat(1.0f) / (splat(1.0f) + exp_of(-x)); }

struct Silu {
  static Floats of(Floats x) { return x * sigmoid(x); }
};

struct GeluTanh {  // tanh(u) = 2 sigmoid(2 u) - 1
  static Floats of(Floats x) {
    return x * sigmoid(x * (splat(1.5957691216f) + x * x * splat(0.0713548162f)));
  }
};

struct Gelu {  // erf by Abramowitz and Stegun 7.1.26, within 1.5e-7
  static Floats of(Floats x) {
    const Floats z = (Floats)((Ints)x & 0x7fffffff) * splat(0.70710678f);
    const Floats t = splat(1.0f) / (splat(1.0f) + z * splat(0.3275911f));
    Floats p = t * splat(1.061405429f) + splat(-1.453152027f);
    p = p * t + splat(1.421413741f);
    p = p * t + splat(-0.284496736f);
    p = p * t + splat(0.254829592f);
    const Floats half = p * t * exp_of(-z * z) * splat(0.5f);  // (1 - erf(|x| / sqrt 2)) / 2
    return x * (x < Floats{} ? half : splat(1.0f) - half);
  }
};

template <class Activation, class T>
void gated_rows(const T* x, T* out, int64_t rows, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 1 && rows * n >= kShare)
  for (int64_t row = 0; row < rows; ++row) {
    const T* gate = x + 2 * row * n;
    for (int64_t i = 0; i < n; i += kLanes) {
      const Floats up = widen(gate + n + i, n - i);
      narrow(Activation::of(widen(gate + i, n - i)) * up, out + row * n + i, n - i);
    }
  }
}

struct Heads {  // [tokens, heads, head_dim]
  const void* data;
  int64_t token_stride, head_stride;
};

// Pairs i and i + half of a head turned by the angles of its token; what follows is copied.
template <class T>
void rotate(const T* x, const float* cosines, int64_t half, int64_t head_dim, T* out) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const Floats first = widen(x + i, half - i), second = widen(x + half + i, half - i);
    const Floats c = widen(cosines + i, half - i), s = widen(cosines + half + i, half - i);
    narrow(first * c - second * s, out + i, half - i);
    narrow(second * c + first * s, out + half + i, half - i);
  }
  if (head_dim > 2 * half) std::memcpy(out + 2 * half, x + 2 * half, (head_dim - 2 * half) * sizeof(T));
}

}  // namespace
}  // namespace quire

using namespace quire;

// out = x / sqrt(mean(x^2) + eps) * weight for rows of n elements; strides in elements, out without gaps.
// With a residual, x + residual goes to `total` and is normed; all are without gaps then. The weight is of
// x's kind or float32.
extern "C" void quire_rms_norm(int kind, const void* x, int64_t outer, int64_t inner, int64_t outer_stride,
                               int64_t inner_stride, const void* residual, void* total, int weight_kind,
                               const void* weight, void* out, int64_t n, float eps, int threads) {
  const Rows rows{outer, inner, outer_stride, inner_stride};
  with_type(kind, [&](auto of_x) {
    using T = decltype(of_x);
    const auto run = [&](auto of_weight) {
      using W = decltype(of_weight);
#pragma omp parallel for num_threads(threads) if (rows.count() > 1 && rows.count() * n >= kShare)
      for (int64_t row = 0; row < rows.count(); ++row) {
        const T* added = residual ? static_cast<const T*>(residual) + row * n : nullptr;
        rms_norm_row(static_cast<const T*>(x) + rows.at(row), added, static_cast<T*>(total) + row * n,
                     static_cast<const W*>(weight), static_cast<T*>(out) + row * n, n, eps);
      }
    };
    if (weight_kind == kFloat32) {
      run(float{});
    } else {
      run(T{});
    }
  });
}

// out = (x - mean) / sqrt(variance + eps) * weight + bias; as above.
extern "C" void quire_layer_norm(int kind, const void* x, int64_t outer, int64_t inner,
                                 int64_t outer_stride, int64_t inner_stride, int weight_kind,
                                 const void* weight, const void* bias, void* out, int64_t n, float eps,
                                 int threads) {
  const Rows rows{outer, inner, outer_stride, inner_stride};
  with_type(kind, [&](auto of_x) {
    using T = decltype(of_x);
    const auto run = [&](auto of_weight) {
      using W = decltype(of_weight);
#pragma omp parallel for num_threads(threads) if (rows.count() > 1 && rows.count() * n >= kShare)
      for (int64_t row = 0; row < rows.count(); ++row) {
        layer_norm_row(static_cast<const T*>(x) + rows.at(row), static_cast<const W*>(weight),
                       static_cast<const W*>(bias), static_cast<T*>(out) + row * n, n, eps);
      }
    };
    if (weight_kind == kFloat32) {
      run(float{});
    } else {
      run(T{});
    }
  });
}

// out[rows][n] = activation(x[rows][:n]) * x[rows][n:]; 0: silu, 1: gelu, 2: gelu by tanh.
extern "C" void quire_gated(int kind, int activation, const void* x, void* out, int64_t rows, int64_t n,
                            int threads) {
  with_type(kind, [&](auto of_x) {
    using T = decltype(of_x);
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(out);
    if (activation == 0) {
      gated_rows<Silu>(from, to, rows, n, threads);
    } else if (activation == 1) {
      gated_rows<Gelu>(from, to, rows, n, threads);
    } else {
      gated_rows<GeluTanh>(from, to, rows, n, threads);
    }
  });
}

// Queries turned by their tokens' angles to out[tokens][heads][head_dim]; keys turned, and values, to their
// slots of the cache [2][blocks][kv_heads][block_size][head_dim]. Without queries and with rotary_dim 0, the
// cache is only written. Strides in elements.
extern "C" void quire_rotary_and_write_kv(
    int kind, const void* query_data, int64_t query_heads, int64_t query_token_stride,
    int64_t query_head_stride, const void* key_data, int64_t kv_heads, int64_t key_token_stride,
    int64_t key_head_stride, const void* value_data, int64_t, int64_t value_token_stride,
    int64_t value_head_stride, const float* cos_sin, int64_t rotary_dim, const int64_t* slots, void* cache,
    int64_t num_blocks, int64_t block_size, int64_t head_dim, void* out, int64_t tokens, int threads) {
  const Heads query{query_data, query_token_stride, query_head_stride};
  const Heads key{key_data, key_token_stride, key_head_stride};
  const Heads value{value_data, value_token_stride, value_head_stride};
  with_type(kind, [&](auto of_x) {
    using T = decltype(of_x);
    const int64_t half = rotary_dim / 2;
    const int64_t to_values = num_blocks * kv_heads * block_size * head_dim;
    const int64_t work = tokens * (query_heads + 2 * kv_heads) * head_dim;
#pragma omp parallel for num_threads(threads) if (tokens > 1 && work >= kShare)
    for (int64_t token = 0; token < tokens; ++token) {
      const float* angles = cos_sin + token * rotary_dim;
      const auto at = [&](const Heads& heads, int64_t head) {
        return static_cast<const T*>(heads.data) + token * heads.token_stride + head * heads.head_stride;
      };
      for (int64_t head = 0; head < query_heads; ++head) {
        T* to = static_cast<T*>(out) + (token * query_heads + head) * head_dim;
        rotate(at(query, head), angles, half, head_dim, to);
      }
      const int64_t block = slots[token] / block_size, offset = slots[token] % block_size;
      for (int64_t head = 0; head < kv_heads; ++head) {
        T* to = static_cast<T*>(cache) + ((block * kv_heads + head) * block_size + offset) * head_dim;
        rotate(at(key, head), angles, half, head_dim, to);
        std::memcpy(to + to_values, at(value, head), head_dim * sizeof(T));
      }
    }
  });
}
