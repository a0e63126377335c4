// Logits of tokens that are not allowed, by bits: bit i % 32 of word i / 32 is token i.
#include "common.h"

namespace quire {
namespace {

void restrict_row(float* row, const uint32_t* words, int64_t n) {
  Words lane;
  UNROLL for (int i = 0; i < kLanes; ++i) lane[i] = 1u << i;
  const Floats never = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const uint32_t word = words[i / 32];
    if (word == 0xffffffffu) continue;
    UNROLL for (int c = 0; c < 32 / kLanes; ++c) {
      float* at = row + i + c * kLanes;
      const Words bits = (Words{} + (word >> c * kLanes)) & lane;
      store(at, bits != 0 ? load<Floats>(at) : never);
    }
  }
  for (; i < n; ++i) {
    if (!(words[i / 32] >> i % 32 & 1)) row[i] = -__builtin_inff();
  }
}

}  // namespace

// x[row][i], of rows `stride` elements apart, becomes -inf where the bits of its row's words[owners[row]][words_n]
// say no; rows of a negative owner stay.
struct Restrict {
  float* x;
  int64_t rows, stride, n;
  const uint32_t* words;
  int64_t words_n;
  const int64_t* owners;
  int64_t threads;
};

extern "C" int64_t quire_restrict_tokens(const Restrict* a) {
  parallel_rows(a->rows, a->rows * a->n, a->threads, [&](int64_t row) {
    const int64_t owner = a->owners[row];
    if (owner >= 0) restrict_row(a->x + row * a->stride, a->words + owner * a->words_n, a->n);
  });
  return 0;
}

}  // namespace quire
