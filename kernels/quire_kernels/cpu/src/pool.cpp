#include "pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quire {
namespace {

// How long a thread looks for the next operation before it sleeps: longer than the pauses within a step.
constexpr auto kAwake = std::chrono::microseconds(40);

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb");
#endif
}

class Pool {
 public:
  void run(int64_t count, int64_t threads, Task task, const void* context) {
    std::unique_lock<std::mutex> mine(owner_, std::try_to_lock);
    if (!mine.owns_lock()) {
      for (int64_t i = 0; i < count; ++i) task(context, i);
      return;
    }
    const int helpers = static_cast<int>(std::min<int64_t>(threads, count)) - 1;
    while (helpers_ < helpers && add_helper()) {
    }
    task_ = task;
    context_ = context;
    count_ = count;
    most_ = static_cast<uint32_t>(helpers);
    next_.store(0, std::memory_order_relaxed);
    gate_.store(kOpen, std::memory_order_release);
    operations_.fetch_add(1);  // in one order with what a helper does before it sleeps
    if (asleep_.load() > 0) {
      { std::lock_guard<std::mutex> lock(sleep_); }
      wake_.notify_all();
    }
    work();
    // Who has not come by now is not waited for; who has finishes what it took.
    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; gate_.load(std::memory_order_acquire) != 0; ++spins) {
      spins < 4096 ? pause() : std::this_thread::yield();
    }
  }

 private:
  static constexpr uint32_t kOpen = 1u << 31;  // of the gate; the other bits: how many helpers are inside

  bool add_helper() {
    try {
      std::thread(&Pool::help, this, operations_.load()).detach();
    } catch (const std::system_error&) {  // the system has no more threads; the caller has itself
      return false;
    }
    ++helpers_;
    return true;
  }

  void work() {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) task_(context_, i);
  }

  bool enter() {
    uint32_t seen = gate_.load(std::memory_order_acquire);
    while (seen & kOpen && (seen & ~kOpen) < most_) {
      if (gate_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void help(uint64_t known) {
    for (;;) {
      await(known);
      known = operations_.load();
      if (enter()) {
        work();
        gate_.fetch_sub(1, std::memory_order_acq_rel);
      }
    }
  }

  // Returns when there is an operation after the `known`th.
  void await(uint64_t known) {
    const auto end = std::chrono::steady_clock::now() + kAwake;
    do {
      for (int spins = 0; spins < 64; ++spins) {
        if (operations_.load(std::memory_order_acquire) != known) return;
        pause();
      }
    } while (std::chrono::steady_clock::now() < end);
    std::unique_lock<std::mutex> lock(sleep_);
    asleep_.fetch_add(1);
    wake_.wait(lock, [&] { return operations_.load() != known; });
    asleep_.fetch_sub(1);
  }

  std::mutex owner_;  // held while an operation runs
  int helpers_ = 0;
  Task task_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0;
  std::atomic<uint32_t> most_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> gate_{0};
  alignas(64) std::atomic<uint64_t> operations_{0};
  std::atomic<int> asleep_{0};
  std::mutex sleep_;
  std::condition_variable wake_;
};

std::atomic<Pool*> pool{nullptr};

// Never destroyed: its threads may outlive the static objects of a process that ends.
Pool& the_pool() {
  static const int registered = [] {
    pool.store(new Pool);
    // A child has none of its parent's threads; it gets a pool of its own.
    return pthread_atfork(nullptr, nullptr, [] { pool.store(new Pool); });
  }();
  (void)registered;
  return *pool.load(std::memory_order_acquire);
}

}  // namespace

void share_out(int64_t count, int64_t threads, Task task, const void* context) {
  the_pool().run(count, threads, task, context);
}

}  // namespace quire
