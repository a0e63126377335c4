// Weights into their packed layout, and rows of an embedding out of it.
#include <type_traits>

#include "packed.h"

namespace quire {
namespace {

// Offset in elements of input `k` of row `n`, where a step holds `width` inputs of each row.
inline int64_t packed_at(int64_t n, int64_t k, int64_t steps, int64_t width) {
  return ((n / kBlock * steps + k / width) * kBlock + n % kBlock) * width + k % width;
}

// The least bfloat16 that is no less than x, which is not negative: what is divided by it stays within bounds.
bfloat16 rounded_up(float x) {
  uint32_t word;
  std::memcpy(&word, &x, 4);
  return {static_cast<uint16_t>((word + 0xffff) >> 16)};
}

template <class T, int kWidth>
void pack(const T* from, int64_t row_stride, int64_t input_stride, int64_t first, int64_t rows,
          int64_t inputs, T* packed, int threads) {
  const int64_t steps = (inputs + kWidth - 1) / kWidth;
  const int64_t first_block = first / kBlock, last_block = (first + rows - 1) / kBlock;
  parallel_rows(last_block - first_block + 1, rows * inputs, threads, [&](int64_t index) {
    const int64_t block = first_block + index;
    const int64_t begin = std::max(first, block * kBlock);
    const int64_t end = std::min(first + rows, (block + 1) * kBlock);
    int64_t k = 0;  // inputs outermost: the packed side is in order
    for (; input_stride == 1 && k + kWidth <= inputs; k += kWidth) {
      T* to = packed + packed_at(begin, k, steps, kWidth);
      const T* at = from + (begin - first) * row_stride + k;
      for (int64_t n = begin; n < end; ++n, to += kWidth, at += row_stride) {
        std::memcpy(to, at, kWidth * sizeof(T));
      }
    }
    for (; k < inputs; k += kWidth) {
      const int64_t count = std::min<int64_t>(kWidth, inputs - k);
      T* to = packed + packed_at(begin, k, steps, kWidth);
      for (int64_t n = begin; n < end; ++n, to += kWidth) {
        const T* at = from + (n - first) * row_stride + k * input_stride;
        for (int64_t i = 0; i < count; ++i) to[i] = at[i * input_stride];
      }
    }
  });
}

template <class T, int kWidth>
void unpack_row(const T* packed, int64_t row, int64_t inputs, T* to) {
  const int64_t steps = (inputs + kWidth - 1) / kWidth;
  const T* from = packed + packed_at(row, 0, steps, kWidth);
  int64_t k = 0;
  for (; k + kWidth <= inputs; k += kWidth, from += kBlock * kWidth) {
    for (int i = 0; i < kWidth; ++i) to[k + i] = from[i];
  }
  for (int i = 0; k < inputs; ++k, ++i) to[k] = from[i];
}

}  // namespace

// Puts `rows` rows, from row `first` of the packed matrix on, into it; float weights of `kind`. Strides in
// elements.
struct Pack {
  int64_t kind;
  const void* from;
  int64_t row_stride, input_stride, first, rows, inputs;
  void* packed;
  bfloat16* scales;  // of int8 alone
  int64_t threads;
};

extern "C" int64_t quire_pack(const Pack* a) {
  const auto run = [&](auto type, auto width) {
    using T = decltype(type);
    pack<T, decltype(width)::value>(static_cast<const T*>(a->from), a->row_stride, a->input_stride, a->first,
                                    a->rows, a->inputs, static_cast<T*>(a->packed),
                                    a->threads);
  };
  if (a->kind == kBfloat16) {
    run(uint16_t{}, std::integral_constant<int, 2>{});
  } else if (a->kind == kFloat16) {
    run(uint16_t{}, std::integral_constant<int, 1>{});
  } else {
    run(float{}, std::integral_constant<int, 1>{});
  }
  return 0;
}

// The same for int8: quantizes rows of `kind`, with a scale for each group.
extern "C" int64_t quire_pack_int8(const Pack* a) {
  const Kind kind = static_cast<Kind>(a->kind);
  const int64_t inputs = a->inputs, steps = (inputs + 3) / 4, groups = (inputs + kGroup - 1) / kGroup;
  parallel_rows(a->rows, a->rows * inputs, a->threads, [&](int64_t r) {
    const int64_t n = a->first + r;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * kGroup, count = std::min<int64_t>(kGroup, inputs - begin);
      float values[kGroup] = {};
      if (a->input_stride == 1) {
        widen(kind, a->from, r * a->row_stride + begin, count, values);
      } else {
        for (int64_t i = 0; i < count; ++i) {
          values[i] = read(kind, a->from, r * a->row_stride + (begin + i) * a->input_stride);
        }
      }
      float largest = 0;
      for (int64_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::fabs(values[i]));
      const bfloat16 scale = rounded_up(largest / 127.0f);
      const float factor = largest > 0 ? 1.0f / from_bfloat16(scale.bits) : 0.0f;
      uint8_t bytes[kGroup];
      for (int64_t i = 0; i < kGroup; ++i) {
        const float rounded = std::fma(values[i], factor, 12582912.0f) - 12582912.0f;  // rounded once
        bytes[i] = static_cast<uint8_t>(static_cast<int>(rounded) + kOffset);
      }
      uint8_t* to = static_cast<uint8_t*>(a->packed) + packed_at(n, begin, steps, 4);
      for (int64_t i = 0; i < count; i += 4, to += kBlock * 4) {
        std::memcpy(to, bytes + i, std::min<int64_t>(4, count - i));
      }
      a->scales[(n / kBlock * groups + g) * kBlock + n % kBlock] = scale;
    }
  });
  return 0;
}

// Rows `ids` of a plain table, of `bytes` each. Returns 0, or one more than the place of the first id that is
// none.
struct Embedding {
  const int64_t* ids;
  int64_t count, rows;
  const char* table;
  char* out;
  int64_t bytes;
};

extern "C" int64_t quire_embedding(const Embedding* a) {
  for (int64_t i = 0; i < a->count; ++i) {
    if (a->ids[i] < 0 || a->ids[i] >= a->rows) return i + 1;
    std::memcpy(a->out + i * a->bytes, a->table + a->ids[i] * a->bytes, a->bytes);
  }
  return 0;
}

// The same of a packed table.
struct PackedEmbedding {
  int64_t kind;
  const int64_t* ids;
  int64_t count, rows;
  const void* packed;
  const bfloat16* scales;  // of int8 alone
  void* out;
  int64_t inputs;
};

extern "C" int64_t quire_packed_embedding(const PackedEmbedding* a) {
  const int64_t inputs = a->inputs;
  for (int64_t i = 0; i < a->count; ++i) {
    const int64_t id = a->ids[i];
    if (id < 0 || id >= a->rows) return i + 1;
    if (a->kind == kFloat32) {
      unpack_row<float, 1>(static_cast<const float*>(a->packed), id, inputs,
                           static_cast<float*>(a->out) + i * inputs);
    } else {
      const uint16_t* from = static_cast<const uint16_t*>(a->packed);
      uint16_t* to = static_cast<uint16_t*>(a->out) + i * inputs;
      if (a->kind == kBfloat16) {
        unpack_row<uint16_t, 2>(from, id, inputs, to);
      } else {
        unpack_row<uint16_t, 1>(from, id, inputs, to);
      }
    }
  }
  return 0;
}

// The same for int8, widened to `kind`.
extern "C" int64_t quire_int8_embedding(const PackedEmbedding* a) {
  const int64_t inputs = a->inputs, steps = (inputs + 3) / 4, groups = (inputs + kGroup - 1) / kGroup;
  for (int64_t i = 0; i < a->count; ++i) {
    const int64_t n = a->ids[i];
    if (n < 0 || n >= a->rows) return i + 1;
    for (int64_t k = 0; k < inputs; ++k) {
      const int value = static_cast<const uint8_t*>(a->packed)[packed_at(n, k, steps, 4)] - kOffset;
      const bfloat16 stored = a->scales[(n / kBlock * groups + k / kGroup) * kBlock + n % kBlock];
      const float scale = from_bfloat16(stored.bits);
      write(static_cast<Kind>(a->kind), a->out, i * inputs + k, static_cast<float>(value) * scale);
    }
  }
  return 0;
}

}  // namespace quire
