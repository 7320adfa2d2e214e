// In place of torch's header: what parallel.h takes from it, with a std::thread for each piece.
// ThreadSanitizer sees every access of these threads; OpenMP's it would misunderstand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace torch::stable {

inline thread_local uint32_t threads = 1;  // of this thread's products

inline uint32_t get_num_threads() { return threads; }

// Calls f(begin, end) for as many pieces of [begin, end) as there are threads, all at once.
template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  const int64_t n = end - begin, pieces = std::min<int64_t>(threads, (n + grain - 1) / grain);
  std::vector<std::thread> running;
  for (int64_t i = 0; i < pieces; ++i)
    running.emplace_back([&, i] { f(begin + n * i / pieces, begin + n * (i + 1) / pieces); });
  for (std::thread& thread : running) thread.join();
}

}  // namespace torch::stable
