// How the work of a product is split: into tiles of samples, and rows into shares of equal work.
//
// No sum is ever split between shares, so the results do not depend on the number of threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "../kernels/tile.h"
#include "isa.h"

namespace tts {

// Multiply-adds below which a second thread costs more than it brings (a fork and join takes
// about 5 microseconds, measured with torch.add on two cores).
constexpr int64_t serial_work = 1 << 15;

// f(begin, end) over pieces of [0, n), in parallel if `work` is worth it. f returns whether all
// its indices were in range; so does this. f must not throw.
template <class F>
bool parallel_pieces(int64_t n, int64_t work, const F& f) {
  if (n <= 0) return true;
  if (n == 1 || work < serial_work) return f(int64_t{0}, n);
  std::atomic<bool> in_range{true};
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    if (!f(begin, end)) in_range.store(false, std::memory_order_relaxed);
  });
  return in_range.load();
}

// Row boundaries of `shares` parts with about equally many nonzeros and rows:
// part i is rows [result[i], result[i + 1]). Safe for any content of crow.
inline std::vector<int64_t> split_rows(const int64_t* crow, int64_t rows, int64_t nnz,
                                       int64_t shares) {
  std::vector<int64_t> bounds{0};
  const auto total = static_cast<uint64_t>(nnz) + static_cast<uint64_t>(rows);
  for (int64_t i = 1; i < shares; ++i) {
    const auto target = static_cast<uint64_t>(static_cast<double>(total) * i / shares);
    int64_t low = bounds.back(), high = rows;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (static_cast<uint64_t>(crow[middle]) + static_cast<uint64_t>(middle) < target)
        low = middle + 1;
      else
        high = middle;
    }
    bounds.push_back(low);
  }
  bounds.push_back(rows);
  return bounds;
}

// f(row_begin, row_end) over shares of the rows, in parallel if `work` is worth it.
template <class F>
bool parallel_rows(const int64_t* crow, int64_t rows, int64_t nnz, int64_t work, const F& f) {
  if (work < serial_work) return f(int64_t{0}, rows);
  const int64_t shares =
      std::min<int64_t>(rows, 4 * static_cast<int64_t>(torch::stable::get_num_threads()));
  const std::vector<int64_t> bounds = split_rows(crow, rows, nnz, shares);
  return parallel_pieces(shares, work, [&](int64_t begin, int64_t end) {
    return f(bounds[begin], bounds[end]);
  });
}

// Samples side by side in a tile: wide enough to fill a vector register, no wider than the batch.
constexpr int widest_tile = 16;

// Calls f(integral_constant<int, L>) for the tile width that suits `batch`.
template <class F>
auto for_tile_width(int64_t batch, const F& f) {
  if (batch <= 1) return f(std::integral_constant<int, 1>{});
  if (batch <= 2) return f(std::integral_constant<int, 2>{});
  if (batch <= 4) return f(std::integral_constant<int, 4>{});
  if (batch <= 8) return f(std::integral_constant<int, 8>{});
  return f(std::integral_constant<int, widest_tile>{});
}

// f(first_sample, samples, tile) for each tile of x (batch, features), one after the other; tile
// is (features, L). Memory: one tile. Throws std::bad_alloc.
template <int L, class T, class F>
bool for_each_tile(Isa isa, const T* x, int64_t batch, int64_t features, const F& f) {
  bool in_range = true;
  if (L == 1) {  // one sample is its own tile
    for (int64_t s = 0; s < batch; ++s) in_range &= f(s, int64_t{1}, x + s * features);
    return in_range;
  }
  constexpr int64_t piece = 256;  // features copied at a time
  const std::unique_ptr<T[]> tile(new T[static_cast<size_t>(features) * L]);
  for (int64_t first = 0; first < batch; first += L) {
    const int64_t samples = std::min<int64_t>(L, batch - first);
    const T* from = x + first * features;
    parallel_pieces((features + piece - 1) / piece, features * L, [&](int64_t begin, int64_t end) {
      return run<FillTile<T, L>>(isa, from, samples, features, begin * piece,
                                 std::min(end * piece, features), tile.get());
    });
    in_range &= f(first, samples, static_cast<const T*>(tile.get()));
  }
  return in_range;
}

}  // namespace tts
