// Norms, gated activations, rotary positions and what goes into the KV cache. All is computed in float32 and
// rounded once. A row's result depends on nothing but the row.
#include "common.h"

namespace quire {

// A matrix of vectors of contiguous elements: strides in elements.
struct Rows {
  int64_t outer, inner, outer_stride, inner_stride;
  int64_t count() const { return outer * inner; }
  int64_t at(int64_t row) const { return row / inner * outer_stride + row % inner * inner_stride; }
};

struct Heads {  // [tokens, heads, head_dim]
  const void* data;
  int64_t count, token_stride, head_stride;
};

namespace {

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
void gated_rows(const T* x, T* out, int64_t rows, int64_t n, int64_t threads) {
  parallel_rows(rows, rows * n, threads, [&](int64_t row) {
    const T* gate = x + 2 * row * n;
    for (int64_t i = 0; i < n; i += kLanes) {
      const Floats up = widen(gate + n + i, n - i);
      narrow(Activation::of(widen(gate + i, n - i)) * up, out + row * n + i, n - i);
    }
  });
}

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

// out = x / sqrt(mean(x^2) + eps) * weight for rows of n elements; strides in elements, out without gaps.
// With a residual, x + residual goes to `total` and is normed; all are without gaps then. The weight is of
// x's kind or float32.
struct RmsNorm {
  int64_t kind;
  const void* x;
  Rows rows;
  const void* residual;
  void* total;
  int64_t weight_kind;
  const void* weight;
  void* out;
  int64_t n;
  double eps;
  int64_t threads;
};

extern "C" int64_t quire_rms_norm(const RmsNorm* a) {
  const Rows rows = a->rows;
  const int64_t n = a->n;
  const float eps = static_cast<float>(a->eps);
  with_type(a->kind, [&](auto of_x) {
    using T = decltype(of_x);
    const auto run = [&](auto of_weight) {
      using W = decltype(of_weight);
      parallel_rows(rows.count(), rows.count() * n, a->threads, [&](int64_t row) {
        const T* added = a->residual ? static_cast<const T*>(a->residual) + row * n : nullptr;
        rms_norm_row(static_cast<const T*>(a->x) + rows.at(row), added, static_cast<T*>(a->total) + row * n,
                     static_cast<const W*>(a->weight), static_cast<T*>(a->out) + row * n, n, eps);
      });
    };
    if (a->weight_kind == kFloat32) {
      run(float{});
    } else {
      run(T{});
    }
  });
  return 0;
}

// out = (x - mean) / sqrt(variance + eps) * weight + bias; as above.
struct LayerNorm {
  int64_t kind;
  const void* x;
  Rows rows;
  int64_t weight_kind;
  const void *weight, *bias;
  void* out;
  int64_t n;
  double eps;
  int64_t threads;
};

extern "C" int64_t quire_layer_norm(const LayerNorm* a) {
  const Rows rows = a->rows;
  const int64_t n = a->n;
  const float eps = static_cast<float>(a->eps);
  with_type(a->kind, [&](auto of_x) {
    using T = decltype(of_x);
    const auto run = [&](auto of_weight) {
      using W = decltype(of_weight);
      parallel_rows(rows.count(), rows.count() * n, a->threads, [&](int64_t row) {
        layer_norm_row(static_cast<const T*>(a->x) + rows.at(row), static_cast<const W*>(a->weight),
                       static_cast<const W*>(a->bias), static_cast<T*>(a->out) + row * n, n, eps);
      });
    };
    if (a->weight_kind == kFloat32) {
      run(float{});
    } else {
      run(T{});
    }
  });
  return 0;
}

// out[rows][n] = activation(x[rows][:n]) * x[rows][n:]; 0: silu, 1: gelu, 2: gelu by tanh.
struct Gated {
  int64_t kind, activation;
  const void* x;
  void* out;
  int64_t rows, n, threads;
};

extern "C" int64_t quire_gated(const Gated* a) {
  with_type(a->kind, [&](auto of_x) {
    using T = decltype(of_x);
    const T* from = static_cast<const T*>(a->x);
    T* to = static_cast<T*>(a->out);
    if (a->activation == 0) {
      gated_rows<Silu>(from, to, a->rows, a->n, a->threads);
    } else if (a->activation == 1) {
      gated_rows<Gelu>(from, to, a->rows, a->n, a->threads);
    } else {
      gated_rows<GeluTanh>(from, to, a->rows, a->n, a->threads);
    }
  });
  return 0;
}

// out[tokens][2 half]: cosines and sines of position times frequency, multiplied by `scaling`.
struct Angles {
  const int64_t* positions;
  const float* frequencies;
  float* out;
  int64_t tokens, half;
  double scaling;
};

extern "C" int64_t quire_rotary_angles(const Angles* a) {
  const float scaling = static_cast<float>(a->scaling);
  for (int64_t token = 0; token < a->tokens; ++token) {
    float* out = a->out + token * 2 * a->half;
    for (int64_t i = 0; i < a->half; ++i) {
      const float angle = static_cast<float>(a->positions[token]) * a->frequencies[i];
      out[i] = std::cos(angle) * scaling;
      out[a->half + i] = std::sin(angle) * scaling;
    }
  }
  return 0;
}

// Queries turned by their tokens' angles to out[tokens][heads][head_dim]; keys turned, and values, to their
// slots of the cache [2][blocks][kv_heads][block_size][head_dim]. Without queries and with rotary_dim 0, the
// cache is only written. Strides in elements.
struct Rotary {
  int64_t kind;
  Heads query, key, value;
  const float* cos_sin;
  int64_t rotary_dim;
  const int64_t* slots;
  void* cache;
  int64_t num_blocks, block_size, head_dim;
  void* out;
  int64_t tokens, threads;
};

extern "C" int64_t quire_rotary_and_write_kv(const Rotary* a) {
  with_type(a->kind, [&](auto of_x) {
    using T = decltype(of_x);
    const int64_t half = a->rotary_dim / 2, head_dim = a->head_dim, block_size = a->block_size;
    const int64_t query_heads = a->query.count, kv_heads = a->key.count;
    const int64_t to_values = a->num_blocks * kv_heads * block_size * head_dim;
    const int64_t work = a->tokens * (query_heads + 2 * kv_heads) * head_dim;
    parallel_rows(a->tokens, work, a->threads, [&](int64_t token) {
      const float* angles = a->cos_sin + token * a->rotary_dim;
      const auto at = [&](const Heads& heads, int64_t head) {
        return static_cast<const T*>(heads.data) + token * heads.token_stride + head * heads.head_stride;
      };
      for (int64_t head = 0; head < query_heads; ++head) {
        T* to = static_cast<T*>(a->out) + (token * query_heads + head) * head_dim;
        rotate(at(a->query, head), angles, half, head_dim, to);
      }
      const int64_t block = a->slots[token] / block_size, offset = a->slots[token] % block_size;
      for (int64_t head = 0; head < kv_heads; ++head) {
        T* to = static_cast<T*>(a->cache) + ((block * kv_heads + head) * block_size + offset) * head_dim;
        rotate(at(a->key, head), angles, half, head_dim, to);
        std::memcpy(to + to_values, at(a->value, head), head_dim * sizeof(T));
      }
    });
  });
  return 0;
}

}  // namespace quire
