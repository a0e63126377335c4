// Weights into their squeezed form, and rows of an embedding out of it.
#include "squeezed.h"

#include <atomic>

namespace quire {

extern "C" int64_t quire_squeezes(const void*) {
#if defined(__AVX512BF16__)
  return 1;
#else
  return 0;
#endif
}

#if defined(__AVX512BF16__)
namespace {

// The base of the seven upper bytes, signs aside, that most of a block's weights have; of equals, the lowest. One
// step in four is looked at.
int best_base(const uint16_t* block, int64_t steps) {
  int32_t counts[128] = {};
  for (int64_t step = 0; step < steps; step += kGroupSteps) {
    for (int i = 0; i < kStepWeights; ++i) ++counts[block[step * kStepWeights + i] >> 8 & 127];
  }
  int32_t sum = 0;
  for (int i = 1; i <= kCodes; ++i) sum += counts[i];
  int best = 0;
  int32_t most = sum;
  for (int base = 1; base + kCodes < 128; ++base) {
    sum += counts[base + kCodes] - counts[base];
    if (sum > most) most = sum, best = base;
  }
  return best;
}

// One block of the packed layout into its record; false: it has more patches than there is room for.
bool fold(const uint16_t* block, const Record& sizes, char* record) {
  Head* head = reinterpret_cast<Head*>(record);
  const int64_t steps = sizes.steps();
  head->base = static_cast<uint16_t>(best_base(block, steps));
  head->unused = 0;
  int64_t count = 0;
  const __m512i base = _mm512_set1_epi16(static_cast<int16_t>(head->base));
  char* to = record + sizes.head_bytes;
  for (int64_t group = 0; group < sizes.groups; ++group, to += kGroupBytes) {
    __m512i lows[kGroupSteps], codes[kGroupSteps];
    for (int s = 0; s < kGroupSteps; ++s) {
      const int64_t at = (group * kGroupSteps + s) * kStepWeights;
      const __m512i words = _mm512_loadu_si512(block + at), upper = _mm512_srli_epi16(words, 8);
      const __m512i unsigned_upper = _mm512_and_si512(upper, _mm512_set1_epi16(127));
      const __m512i sign = _mm512_srli_epi16(_mm512_and_si512(upper, _mm512_set1_epi16(128)), 4);
      const __m512i code = _mm512_sub_epi16(unsigned_upper, base);
      const __mmask32 zero = _mm512_testn_epi16_mask(unsigned_upper, unsigned_upper);
      const __mmask32 coded = _mm512_cmplt_epu16_mask(_mm512_sub_epi16(code, _mm512_set1_epi16(1)),
                                                      _mm512_set1_epi16(kCodes)) & ~zero;
      lows[s] = _mm512_maskz_mov_epi16(coded | zero, _mm512_and_si512(words, _mm512_set1_epi16(255)));
      codes[s] = _mm512_maskz_mov_epi16(coded | zero, _mm512_or_si512(sign, _mm512_maskz_mov_epi16(coded, code)));
      for (uint32_t rest = ~static_cast<uint32_t>(coded | zero); rest; rest &= rest - 1) {
        if (count == sizes.capacity) return false;
        const int64_t place = at + __builtin_ctz(rest);
        head->patches[count++] = {static_cast<uint32_t>(place), block[place], 0};
      }
    }
    _mm512_storeu_si512(to, _mm512_packus_epi16(lows[0], lows[1]));
    _mm512_storeu_si512(to + 64, _mm512_packus_epi16(lows[2], lows[3]));
    const __m512i next = _mm512_slli_epi16(_mm512_packus_epi16(codes[2], codes[3]), 4);
    _mm512_storeu_si512(to + 128, _mm512_or_si512(_mm512_packus_epi16(codes[0], codes[1]), next));
  }
  head->count = static_cast<uint16_t>(count);
  return true;
}

}  // namespace

// Puts `rows` rows, from row `first` on, a multiple of 16, into a squeezed matrix; the last block is filled up with
// zeros. Strides in elements. Returns how many blocks did not fit; the matrix is of no use then.
struct Squeeze {
  const uint16_t* from;
  int64_t row_stride, input_stride, first, rows, inputs;
  char* squeezed;
  int64_t threads;
};

extern "C" int64_t quire_squeeze(const Squeeze* a) {
  const Record sizes(a->inputs);
  std::atomic<int64_t> wrong{0};
  parallel_rows((a->rows + kBlock - 1) / kBlock, a->rows * a->inputs, a->threads, [&](int64_t index) {
    static thread_local std::vector<uint16_t> packed;
    packed.assign(sizes.steps() * kStepWeights, 0);
    const int64_t begin = index * kBlock, count = std::min<int64_t>(kBlock, a->rows - begin);
    const uint16_t* from = a->from + begin * a->row_stride;
    int64_t k = 0;
    for (; a->input_stride == 1 && k + 2 <= a->inputs; k += 2) {
      uint16_t* to = packed.data() + k * kBlock;
      for (int64_t n = 0; n < count; ++n) std::memcpy(to + n * 2, from + n * a->row_stride + k, 4);
    }
    for (; k < a->inputs; ++k) {
      uint16_t* to = packed.data() + k / 2 * kStepWeights + k % 2;
      for (int64_t n = 0; n < count; ++n) to[n * 2] = from[n * a->row_stride + k * a->input_stride];
    }
    char* record = a->squeezed + (a->first / kBlock + index) * sizes.bytes();
    if (!fold(packed.data(), sizes, record)) wrong.fetch_add(1, std::memory_order_relaxed);
  });
  return wrong;
}

// Rows `ids` of a squeezed table. Returns 0, or one more than the place of the first id that is none.
struct SqueezedEmbedding {
  const int64_t* ids;
  int64_t count, rows;
  const char* squeezed;
  uint16_t* out;
  int64_t inputs;
};

extern "C" int64_t quire_squeezed_embedding(const SqueezedEmbedding* a) {
  const Record sizes(a->inputs);
  for (int64_t i = 0; i < a->count; ++i) {
    const int64_t id = a->ids[i], column = id % kBlock;
    if (id < 0 || id >= a->rows) return i + 1;
    const char* record = a->squeezed + id / kBlock * sizes.bytes();
    const Head* head = reinterpret_cast<const Head*>(record);
    uint16_t* to = a->out + i * a->inputs;
    for (int64_t k = 0; k < a->inputs; ++k) {
      const int64_t step = k / 2, s = step % kGroupSteps, lane = column * 2 + k % 2;
      const char* group = record + sizes.head_bytes + step / kGroupSteps * kGroupBytes;
      const int64_t place = lane / 8 * 16 + s % 2 * 8 + lane % 8;  // of 64
      const int code = static_cast<uint8_t>(group[128 + place]) >> s / 2 * 4;
      const int upper = (code & 8) << 4 | ((code & 7) ? head->base + (code & 7) : 0);
      to[k] = static_cast<uint16_t>(upper << 8 | static_cast<uint8_t>(group[s / 2 * 64 + place]));
    }
    for (int p = 0; p < head->count; ++p) {
      const int64_t at = head->patches[p].at;
      if (at % kStepWeights / 2 == column) to[at / kStepWeights * 2 + at % 2] = head->patches[p].weight;
    }
  }
  return 0;
}
#endif

}  // namespace quire
