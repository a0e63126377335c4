// What this machine can do at most: bytes read per second, and products per second of each kind.
//
//     ceiling THREADS MEBIBYTES
//
// Prints one JSON object: "bytes", read by all threads over a buffer that no cache holds, and for each kind
// of numbers multiplications and additions, counted apart, by the widest instruction that the compiler's
// target has for it. A kind without an instruction of its own is left out.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kInFlight = 12;  // results that do not wait for each other; with two operands, in registers

typedef int64_t Longs __attribute__((vector_size(kBytes)));
typedef float Floats __attribute__((vector_size(kBytes)));

constexpr int kPasses = 40;   // the best counts
constexpr int64_t kSteps = 1 << 21;

std::atomic<int64_t> sink;  // keeps the compiler from leaving work out

// The fewest seconds in which all threads are done with work(thread), of several passes.
template <class Work>
double seconds(int threads, const Work& work) {
  double best = 1e9;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> all;
    for (int t = 0; t < threads; ++t) {
      all.emplace_back([&, t] {
        ++ready;
        while (!go) std::this_thread::yield();
        work(t);
      });
    }
    while (ready < threads) std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();
    go = true;
    for (std::thread& thread : all) thread.join();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return best;
}

// Reads [begin, end); prefetches so far ahead that the processor's own guess does not matter.
void read(const Longs* begin, const Longs* end) {
  constexpr int kAhead = 4096 / kBytes;
  Longs sums[8] = {};
  for (const Longs* at = begin; at + 8 <= end; at += 8) {
    for (int i = 0; i < 8; i += 64 / kBytes) __builtin_prefetch(at + kAhead + i);
    for (int i = 0; i < 8; ++i) sums[i] ^= at[i];
  }
  for (int i = 1; i < 8; ++i) sums[0] ^= sums[i];
  sink += sums[0][0];
}

template <class Value, class Step>
double products(int threads, int64_t each, Value start, const Step& step) {
  const double took = seconds(threads, [&](int) {
    Value results[kInFlight];
    for (Value& result : results) result = start;
    for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kInFlight; ++j) results[j] = step(results[j]);
    }
    for (const Value& result : results) sink += reinterpret_cast<const int32_t&>(result);
  });
  return 2.0 * each * kInFlight * kSteps * threads / took;
}

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const int threads = std::atoi(arguments[1]);
  const int64_t size = std::atoll(arguments[2]) << 20, share = size / threads / kBytes;
  std::vector<Longs> memory(size / kBytes);
  std::fill(memory.begin(), memory.end(), Longs{} + 1);
  const double read_time = seconds(threads, [&](int t) {
    read(memory.data() + t * share, memory.data() + (t + 1) * share);
  });
  std::printf("{\"bytes\": %.6g", share * threads * kBytes / read_time);

  const Floats half = Floats{} + 0.5f;
  std::printf(", \"float32\": %.6g", products(threads, kBytes / 4, half, [&](Floats sum) { return sum * half + half; }));
#if defined(__AVX512BF16__)
  const __m512bh pairs = (__m512bh)_mm512_set1_epi32(0x3f003f00);  // 0.5, twice
  std::printf(", \"bfloat16\": %.6g", products(threads, 32, _mm512_set1_ps(0.5f), [&](__m512 sum) {
                return _mm512_dpbf16_ps(sum, pairs, pairs);
              }));
#endif
#if defined(__AVX512VNNI__)
  const __m512i ones = _mm512_set1_epi8(1);
  std::printf(", \"int8\": %.6g", products(threads, 64, _mm512_setzero_si512(), [&](__m512i sum) {
                return _mm512_dpbusd_epi32(sum, ones, ones);
              }));
#endif
  std::printf("}\n");
}
