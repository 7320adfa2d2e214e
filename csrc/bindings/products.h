// The forward product, and the input gradient by itself.
#pragma once

#include "../kernels/scatter.h"
#include "../kernels/spmm.h"
#include "tiles.h"

namespace tts {

// y = x W^T + bias, for W (rows, columns) in compressed rows. All pointers as in kernels/spmm.h;
// x is (batch, columns) row-major.
template <class T, class X, class I>
bool multiply(const X* x, int64_t batch, const int64_t* crow, const I* col, const T* values,
              int64_t nnz, const T* bias, X* y, int64_t rows, int64_t columns) {
  const Isa isa = active_isa();
  const Plan plan = make_plan<T>(batch, columns, nnz, rows, available_threads(), true);
  return for_each_tile<T>(
      plan, x, batch, columns, crow, rows, nnz,
      [&](auto L, int64_t begin, int64_t end, int64_t first, int64_t samples, const T* tile) {
        return run<SpmmRows<T, I, X, L>>(isa, begin, end, crow, col, values, nnz, columns, bias,
                                         tile, y + first * rows, samples, rows);
      });
}

// dx = dy W, for W (rows, columns) in compressed rows. All pointers as in kernels/scatter.h; dx is
// (batch, columns) row-major.
template <class T, class X, class I>
bool multiply_transposed(const X* dy, int64_t batch, const int64_t* crow, const I* col,
                         const T* values, int64_t nnz, X* dx, int64_t rows, int64_t columns) {
  constexpr int64_t W = widest_tile<T>;
  const Isa isa = active_isa();
  const Plan plan = make_plan<T>(batch, columns, nnz, rows, available_threads(), true);
  const int64_t parts = scatter_parts(nnz, columns, plan.tiles);
  const std::vector<int64_t> bounds = split_rows(crow, rows, nnz, parts);
  const int64_t stride = columns * tile_width<T>(std::min(W, batch));
  const int64_t at_once = parts > 1 ? 1 : std::min(plan.tiles, plan.workers);
  const Scratch<T> scratch(stride * parts * at_once);

  const auto scatter = [&](int64_t tile, int64_t part, T* sums) {
    const int64_t first = tile * W, samples = std::min(W, batch - first);
    return for_tile_width<T>(samples, [&](auto L) {
      std::fill(sums, sums + columns * L, T(0));
      return run<ScatterRows<T, I, X, L>>(isa, bounds[part], bounds[part + 1], crow, col, values,
                                          nnz, columns, dy + first * rows, samples, rows,
                                          sums);
    });
  };
  const auto collect = [&](int64_t tile, int64_t begin, int64_t end, const T* sums) {
    const int64_t first = tile * W, samples = std::min(W, batch - first);
    return for_tile_width<T>(samples, [&](auto L) {
      return run<CollectColumns<T, X, L>>(isa, begin, end, parts, stride, sums,
                                          dx + first * columns, samples, columns);
    });
  };
  if (parts == 1)
    return parallel_items(plan.tiles, plan.workers, [&](int64_t tile, int64_t worker) {
      T* sums = scratch.get() + worker * stride;
      const bool in_range = scatter(tile, 0, sums);
      collect(tile, 0, columns, sums);
      return in_range;
    });
  bool in_range = true;
  for (int64_t tile = 0; tile < plan.tiles; ++tile) {
    in_range &= parallel_items(parts, plan.workers, [&](int64_t part, int64_t) {
      return scatter(tile, part, scratch.get() + part * stride);
    });
    parallel_pieces(columns, columns * parts, [&](int64_t begin, int64_t end) {
      return collect(tile, begin, end, scratch.get());
    });
  }
  return in_range;
}

}  // namespace tts
