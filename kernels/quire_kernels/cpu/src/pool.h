// Threads that share out the work of one operation. It knows no operation.
//
// They are quire's own and not OpenMP's, which keeps a team for each thread that ever computed, puts teams to
// sleep at once where together they have more threads than there are cores, and then takes longer to wake
// one than most operations here take.
#pragma once

#include <algorithm>
#include <cstdint>

namespace quire {

using Task = void (*)(const void* context, int64_t index);

// Calls task(context, i) once for each i in [0, count), on up to `threads` threads of which the caller is one,
// and returns when all calls have. Which thread takes which index is open. While an operation of another
// caller runs, the caller works alone.
void share_out(int64_t count, int64_t threads, Task task, const void* context);

// body(i) for each i in [0, count).
template <class Body>
void parallel_for(int64_t count, int64_t threads, const Body& body) {
  if (count > 1 && threads > 1) {
    share_out(
        count, threads, [](const void* c, int64_t i) { (*static_cast<const Body*>(c))(i); }, &body);
  } else {
    for (int64_t i = 0; i < count; ++i) body(i);
  }
}

// body(row) for each row, some in a row on each thread; on one thread where `work`, in elements, is little.
template <class Body>
void parallel_rows(int64_t rows, int64_t work, int64_t threads, const Body& body) {
  constexpr int64_t kShare = 16384;  // least elements that are worth a second thread
  const int64_t parts = work < kShare ? 1 : std::min<int64_t>(rows, 4 * threads);
  parallel_for(parts, threads, [&](int64_t part) {
    const int64_t end = rows * (part + 1) / parts;
    for (int64_t row = rows * part / parts; row < end; ++row) body(row);
  });
}

}  // namespace quire
