// Splits work between threads. No sum is split, so results do not depend on the number of threads,
// nor on which thread does which part.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "plan.h"

namespace tts {

// Calls f(begin, end) for pieces of [0, n), in parallel if `work` (in visits, see plan.h) is large
// enough. Each call returns whether all its indices were in range; this function returns whether
// all calls did. f must not throw.
template <class F>
bool parallel_pieces(int64_t n, int64_t work, const F& f) {
  if (n <= 0) return true;
  if (n == 1 || work < serial_visits) return f(int64_t{0}, n);
  std::atomic<bool> in_range{true};
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    if (!f(begin, end)) in_range.store(false, std::memory_order_relaxed);
  });
  return in_range.load();
}

// Calls f(item, worker) for every item of [0, items). Each of `workers` threads takes the next item
// when it has finished one; worker < workers is the number of the thread. Everything else is as for
// parallel_pieces.
template <class F>
bool parallel_items(int64_t items, int64_t workers, const F& f) {
  workers = std::min(workers, items);
  if (workers <= 1) {
    bool in_range = true;
    for (int64_t item = 0; item < items; ++item) in_range &= f(item, int64_t{0});
    return in_range;
  }
  std::atomic<bool> in_range{true};
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker)
      for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;)
        if (!f(item, worker)) in_range.store(false, std::memory_order_relaxed);
  });
  return in_range.load();
}

// Returns the boundaries of `shares` parts of some rows, each with about as many nonzeros and rows:
// part i is rows [result[i], result[i + 1]). Safe for any content of w.crow.
// Cost: O(shares log rows).
template <class T, class I>
std::vector<int64_t> split_rows(const CsrView<T, I>& w, int64_t shares, Range rows) {
  const auto before = [&](int64_t row) {  // nonzeros and rows before this one
    return static_cast<uint64_t>(w.crow[row]) + static_cast<uint64_t>(row);
  };
  std::vector<int64_t> bounds{rows.begin};
  const uint64_t start = before(rows.begin), total = before(rows.end) - start;
  for (int64_t i = 1; i < shares; ++i) {
    const auto target = start + static_cast<uint64_t>(static_cast<double>(total) * i / shares);
    int64_t low = bounds.back(), high = rows.end;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (before(middle) < target)
        low = middle + 1;
      else
        high = middle;
    }
    bounds.push_back(low);
  }
  bounds.push_back(rows.end);
  return bounds;
}

// The same for all rows.
template <class T, class I>
std::vector<int64_t> split_rows(const CsrView<T, I>& w, int64_t shares) {
  return split_rows(w, shares, {0, w.rows});
}

inline int64_t available_threads() {
  return static_cast<int64_t>(torch::stable::get_num_threads());
}

}  // namespace tts
