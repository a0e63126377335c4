// The greatest number of each row, and where it stands first.
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

}  // namespace quire
