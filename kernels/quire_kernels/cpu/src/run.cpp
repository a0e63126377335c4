// Runs recorded calls one after the other.
#include <cstdint>

namespace {

struct Call {
  int64_t (*operation)(const void* arguments);
  const void* arguments;
};

}  // namespace

extern "C" void quire_run(const Call* calls, int64_t count) {
  for (int64_t i = 0; i < count; ++i) calls[i].operation(calls[i].arguments);
}
