// Weights into their packed layout, and rows of an embedding out of it.
#include "packed.h"

namespace quire {
namespace {

// Offset in elements of input `k` of row `n`, where a step holds `width` inputs of each row.
inline int64_t packed_at(int64_t n, int64_t k, int64_t steps, int64_t width) {
  return ((n / kBlock * steps + k / width) * kBlock + n % kBlock) * width + k % width;
}

template <class T, int kWidth>
void pack(const T* from, int64_t row_stride, int64_t input_stride, int64_t first, int64_t rows,
          int64_t inputs, T* packed, int threads) {
  const int64_t steps = (inputs + kWidth - 1) / kWidth;
  const int64_t first_block = first / kBlock, last_block = (first + rows - 1) / kBlock;
#pragma omp parallel for num_threads(threads) if (rows * inputs > 1 << 16)
  for (int64_t block = first_block; block <= last_block; ++block) {
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
  }
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
}  // namespace quire

// Puts `rows` rows, from row `first` of the packed matrix on, into it; float weights of `kind`. Strides in
// elements.
extern "C" void quire_pack(int kind, const void* from, int64_t row_stride, int64_t input_stride,
                           int64_t first, int64_t rows, int64_t inputs, void* packed, int threads) {
  using namespace quire;
  if (kind == kBfloat16) {
    pack<uint16_t, 2>(static_cast<const uint16_t*>(from), row_stride, input_stride, first, rows, inputs,
                      static_cast<uint16_t*>(packed), threads);
  } else if (kind == kFloat16) {
    pack<uint16_t, 1>(static_cast<const uint16_t*>(from), row_stride, input_stride, first, rows, inputs,
                      static_cast<uint16_t*>(packed), threads);
  } else {
    pack<float, 1>(static_cast<const float*>(from), row_stride, input_stride, first, rows, inputs,
                   static_cast<float*>(packed), threads);
  }
}

// The same for int8: quantizes rows of `kind`, with a scale for each group.
extern "C" void quire_pack_int8(int kind_, const void* from, int64_t row_stride, int64_t input_stride,
                                int64_t first, int64_t rows, int64_t inputs, uint8_t* packed,
                                float* scales, int threads) {
  using namespace quire;
  const Kind kind = static_cast<Kind>(kind_);
  const int64_t steps = (inputs + 3) / 4, groups = (inputs + kGroup - 1) / kGroup;
#pragma omp parallel for num_threads(threads) if (rows * inputs > 1 << 16)
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t n = first + r;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * kGroup, count = std::min<int64_t>(kGroup, inputs - begin);
      float values[kGroup] = {};
      if (input_stride == 1) {
        widen(kind, from, r * row_stride + begin, count, values);
      } else {
        for (int64_t i = 0; i < count; ++i) {
          values[i] = read(kind, from, r * row_stride + (begin + i) * input_stride);
        }
      }
      float largest = 0;
      for (int64_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::fabs(values[i]));
      const float factor = largest > 0 ? 127.0f / largest : 0.0f;
      uint8_t bytes[kGroup];
      for (int64_t i = 0; i < kGroup; ++i) {
        const float rounded = values[i] * factor + 12582912.0f - 12582912.0f;
        bytes[i] = static_cast<uint8_t>(static_cast<int>(rounded) + kOffset);
      }
      uint8_t* to = packed + packed_at(n, begin, steps, 4);
      for (int64_t i = 0; i < count; i += 4, to += kBlock * 4) {
        std::memcpy(to, bytes + i, std::min<int64_t>(4, count - i));
      }
      scales[(n / kBlock * groups + g) * kBlock + n % kBlock] = largest / 127.0f;
    }
  }
}

// Rows `ids` of a packed table, one after the other. Returns -1, or the place of the first id that is none.
extern "C" int64_t quire_packed_embedding(int kind, const int64_t* ids, int64_t count, int64_t rows,
                                          const void* packed, void* out, int64_t inputs) {
  using namespace quire;
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] < 0 || ids[i] >= rows) return i;
    if (kind == kFloat32) {
      unpack_row<float, 1>(static_cast<const float*>(packed), ids[i], inputs,
                           static_cast<float*>(out) + i * inputs);
    } else {
      const uint16_t* from = static_cast<const uint16_t*>(packed);
      uint16_t* to = static_cast<uint16_t*>(out) + i * inputs;
      if (kind == kBfloat16) {
        unpack_row<uint16_t, 2>(from, ids[i], inputs, to);
      } else {
        unpack_row<uint16_t, 1>(from, ids[i], inputs, to);
      }
    }
  }
  return -1;
}

// The same for int8, widened to `kind`.
extern "C" int64_t quire_int8_embedding(int kind, const int64_t* ids, int64_t count, int64_t rows,
                                        const uint8_t* packed, const float* scales, void* out,
                                        int64_t inputs) {
  using namespace quire;
  const int64_t steps = (inputs + 3) / 4, groups = (inputs + kGroup - 1) / kGroup;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t n = ids[i];
    if (n < 0 || n >= rows) return i;
    for (int64_t k = 0; k < inputs; ++k) {
      const int value = packed[packed_at(n, k, steps, 4)] - kOffset;
      const float scale = scales[(n / kBlock * groups + k / kGroup) * kBlock + n % kBlock];
      write(static_cast<Kind>(kind), out, i * inputs + k, static_cast<float>(value) * scale);
    }
  }
  return -1;
}
