// The greatest number of each row, and where it stands first; and the greatest few.
#include <functional>

#include "common.h"

namespace quire {
namespace {

// NaN where there is any, as torch has it.
float peak_of(const float* row, int64_t n) {
  constexpr int kChains = 4;
  Floats most[kChains];
  Ints wrong{};
  for (Floats& part : most) part = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
    UNROLL for (int c = 0; c < kChains; ++c) {
      const Floats x = load<Floats>(row + i + c * kLanes);
      most[c] = x > most[c] ? x : most[c];
      wrong |= x != x;
    }
  }
  Floats all = most[0];
  UNROLL for (int c = 1; c < kChains; ++c) all = most[c] > all ? most[c] : all;
  float peak = max_of(all);
  bool any_wrong = false;
  for (int lane = 0; lane < kLanes; ++lane) any_wrong |= wrong[lane] != 0;
  for (; i < n; ++i) {
    peak = row[i] > peak ? row[i] : peak;
    any_wrong |= row[i] != row[i];
  }
  return any_wrong ? __builtin_nanf("") : peak;
}

int64_t place_of(const float* row, int64_t n, float peak) {
  const bool wrong = peak != peak;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Floats x = load<Floats>(row + i);
    const Ints found = wrong ? x != x : x == splat(peak);
    int32_t any = 0;
    UNROLL for (int lane = 0; lane < kLanes; ++lane) any |= found[lane];
    if (any) break;
  }
  for (; i < n; ++i) {
    if (wrong ? row[i] != row[i] : row[i] == peak) return i;
  }
  return 0;
}

// Whole numbers in whose order greater floats come first, and of equal ones those that stand first.
uint64_t rank_of(float x, int64_t place) {
  x += 0.0f;  // -0 is 0
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~ascending) << 32 | static_cast<uint64_t>(place);
}

// The `width` greatest of a row, in order. A number that is less than the greatest of `width` parts of the
// row is not among them, so that few are ever looked at one by one.
void greatest_of(const float* row, int64_t n, int64_t width, float* values, int64_t* ids) {
  constexpr int64_t kPart = 64;
  static thread_local std::vector<float> tops, sorted;
  static thread_local std::vector<uint64_t> ranks;
  const int64_t parts = (n + kPart - 1) / kPart;
  float least = -__builtin_inff();
  tops.resize(parts);
  for (int64_t part = 0; part < parts; ++part) {
    tops[part] = peak_of(row + part * kPart, std::min(kPart, n - part * kPart));
  }
  if (width < parts) {
    sorted = tops;
    std::nth_element(sorted.begin(), sorted.begin() + width - 1, sorted.end(), std::greater<float>());
    least = sorted[width - 1];
  }
  ranks.clear();
  for (int64_t part = 0; part < parts; ++part) {
    if (tops[part] < least) continue;
    const int64_t end = std::min(n, (part + 1) * kPart);
    for (int64_t i = part * kPart; i < end; ++i) {
      if (row[i] >= least) ranks.push_back(rank_of(row[i], i));
    }
  }
  std::nth_element(ranks.begin(), ranks.begin() + width - 1, ranks.end());
  std::sort(ranks.begin(), ranks.begin() + width);
  for (int64_t i = 0; i < width; ++i) {
    ids[i] = static_cast<int64_t>(ranks[i] & 0xffffffffu);
    values[i] = row[ids[i]];
  }
}

}  // namespace

// values[rows], ids[rows] of x[rows][n], whose rows are `stride` elements apart.
struct Peaks {
  const float* x;
  int64_t rows, stride, n;
  float* values;
  int64_t *ids, threads;
};

extern "C" int64_t quire_row_peaks(const Peaks* a) {
  parallel_rows(a->rows, a->rows * a->n, a->threads, [&](int64_t row) {
    const float* x = a->x + row * a->stride;
    a->values[row] = peak_of(x, a->n);
    a->ids[row] = place_of(x, a->n, a->values[row]);
  });
  return 0;
}

// values[rows][width], ids[rows][width]: the greatest of each row in descending order, lower places first among
// equals. No number is NaN, and width is at most n.
struct Likeliest {
  const float* x;
  int64_t rows, stride, n, width;
  float* values;
  int64_t *ids, threads;
};

extern "C" int64_t quire_likeliest(const Likeliest* a) {
  parallel_rows(a->rows, a->rows * a->n, a->threads, [&](int64_t row) {
    greatest_of(a->x + row * a->stride, a->n, a->width, a->values + row * a->width, a->ids + row * a->width);
  });
  return 0;
}

}  // namespace quire
