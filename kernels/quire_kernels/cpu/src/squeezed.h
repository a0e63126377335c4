// Bfloat16 weights in 12 bits each, exactly: the upper byte of a weight, its sign and seven bits of its exponent, is
// nearly always one of fourteen or so, which four bits tell apart.
//
// A block of 16 columns is a record of its own: a head, then its weights in groups of four steps, 192 bytes each: the
// lower bytes of steps 0 and 1, those of 2 and 3, and then the codes of all upper bytes: the lower halves of 64
// bytes are of steps 0 and 1, the upper halves of 2 and 3. Two steps lie as they come from packing two registers:
// eight bytes of one and eight of the other in turn. A code is the sign and three bits: 0 for zero, and others are
// added to the block's `base`. A weight that has no code stands as zero there, and in the head's list of
// patches as it is. What is multiplied is unfolded into the packed layout a few steps at a time, and so every
// result has the bits that packed weights would give.
#pragma once

#include "packed.h"

namespace quire {

constexpr int kGroupSteps = 4;  // steps of a group
constexpr int64_t kGroupBytes = 192;
constexpr int64_t kStepWeights = 2 * kBlock, kGroupWeights = kGroupSteps * kStepWeights;
constexpr int kCodes = 7;  // upper bytes, but for the sign, from base + 1 on

struct Patch {
  uint32_t at;  // place in the block's packed layout
  uint16_t weight, unused;
};

// The head of a record. Patches stand in the order of their places.
struct Head {
  uint16_t base, count;
  uint32_t unused;
  Patch patches[1];  // as many as there is room for
};

struct Record {  // sizes of a block's
  int64_t groups, capacity, head_bytes;

  explicit Record(int64_t inputs)
      : groups((inputs + 7) / 8),
        capacity(groups / 16 * 8 + 7),
        head_bytes(8 + capacity * static_cast<int64_t>(sizeof(Patch))) {}
  int64_t steps() const { return groups * kGroupSteps; }
  int64_t bytes() const { return head_bytes + groups * kGroupBytes; }
};

#if defined(__AVX512BF16__)
// Upper bytes, by code.
inline __m512i uppers_of(int base) {
  const __m128i codes = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
  const __m128i signs = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, -128, -128, -128, -128, -128, -128, -128);
  const __m128i added = _mm_maskz_add_epi8(0xfefe, codes, _mm_set1_epi8(static_cast<int8_t>(base)));
  return _mm512_broadcast_i32x4(_mm_or_si128(added, signs));
}

// The four steps of a group, but for patches.
inline void unfold(const char* group, __m512i uppers, __m512i* steps) {
  const __m512i low = _mm512_loadu_si512(group), next_low = _mm512_loadu_si512(group + 64);
  const __m512i codes = _mm512_loadu_si512(group + 128), four_bits = _mm512_set1_epi8(15);
  const __m512i high = _mm512_shuffle_epi8(uppers, _mm512_and_si512(codes, four_bits));
  const __m512i next_high =
      _mm512_shuffle_epi8(uppers, _mm512_and_si512(_mm512_srli_epi16(codes, 4), four_bits));
  steps[0] = _mm512_unpacklo_epi8(low, high);
  steps[1] = _mm512_unpackhi_epi8(low, high);
  steps[2] = _mm512_unpacklo_epi8(next_low, next_high);
  steps[3] = _mm512_unpackhi_epi8(next_low, next_high);
}

// Walks through a record's patches, group by group.
struct Patches {
  const Patch *next, *end;
  int64_t group;  // of the next one

  Patches() = default;
  explicit Patches(const Head* head, int64_t first_group = 0) : end(head->patches + head->count) {
    const auto before = [](const Patch& patch, int64_t at) { return patch.at < at; };
    next = first_group ? std::lower_bound(head->patches, end, first_group * kGroupWeights, before) : head->patches;
    find_group();
  }
  void find_group() { group = next < end ? next->at / kGroupWeights : INT64_MAX; }
  // Puts patches into the steps of their group; those of others stay in registers.
  void apply(int64_t to_group, __m512i* steps) {
    if (__builtin_expect(group != to_group, 1)) return;
    __m512i copy[kGroupSteps] = {steps[0], steps[1], steps[2], steps[3]};
    patch(reinterpret_cast<char*>(copy));
    UNROLL for (int s = 0; s < kGroupSteps; ++s) steps[s] = copy[s];
  }
  __attribute__((noinline)) void patch(char* weights) {
    const int64_t here = group;
    for (; group == here; ++next, find_group()) std::memcpy(weights + next->at % kGroupWeights * 2, &next->weight, 2);
  }
};
#endif

}  // namespace quire
