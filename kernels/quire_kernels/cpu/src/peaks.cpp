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
}  // namespace quire

// values[rows], ids[rows] of x[rows][n], whose rows are `stride` elements apart.
extern "C" void quire_row_peaks(const float* x, int64_t rows, int64_t stride, int64_t n, float* values,
                                int64_t* ids, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 1 && rows * n >= 65536)
  for (int64_t row = 0; row < rows; ++row) {
    values[row] = quire::peak_of(x + row * stride, n);
    ids[row] = quire::place_of(x + row * stride, n, values[row]);
  }
}
