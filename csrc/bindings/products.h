// The forward product, and the input gradient computed on its own.
#pragma once

#include "../kernels/compiled.h"
#include "../kernels/gather.h"
#include "tiles.h"

namespace tts {

// y = x W^T + bias; bias (w.rows) or null. Returns whether all indices were in range.
template <class X, class T, class I>
bool multiply(const Activations<const X>& x, const CsrView<T, I>& w, const T* bias,
              const Activations<X>& y) {
  const Isa isa = active_isa();
  return for_each_tile(make_plan(w, x.samples, available_threads()), x, w,
                       [&](Range rows, int64_t first, int64_t samples, const T* tile) {
                         return compiled::spmm_rows(isa, rows, w, bias, tile,
                                                    y.part(first, samples));
                       });
}

// dx = dy W, scattered along the rows. Returns whether all indices were in range.
template <class X, class T, class I>
bool multiply_transposed(const Activations<const X>& dy, const CsrView<T, I>& w,
                         const Activations<X>& dx) {
  constexpr int64_t W = widest_tile<T>;
  const Isa isa = active_isa();
  const int64_t batch = dy.samples;
  const Plan plan = make_plan(w, batch, available_threads());
  const int64_t parts = scatter_parts(w, plan.tiles);
  const std::vector<int64_t> bounds = split_rows(w, parts);
  const int64_t size = w.columns * tile_width<T>(std::min(W, batch));
  const Scratch<T> scratch(size * (parts > 1 ? parts : std::min(plan.tiles, plan.workers)));

  const auto samples_of = [&](int64_t tile) { return std::min(W, batch - tile * W); };
  const auto scatter = [&](int64_t tile, int64_t part, T* sums) {
    const int64_t samples = samples_of(tile);
    std::fill(sums, sums + w.columns * tile_width<T>(samples), T(0));
    return compiled::scatter_rows(isa, {bounds[part], bounds[part + 1]}, w,
                                  dy.part(tile * W, samples), sums);
  };
  const auto collect = [&](int64_t tile, Range columns, const T* sums) {
    compiled::collect_columns(isa, columns, PartialSums<T>{sums, parts, size}, false,
                              dx.part(tile * W, samples_of(tile)));
  };
  if (parts == 1)
    return parallel_items(plan.tiles, plan.workers, [&](int64_t tile, int64_t worker) {
      T* sums = scratch.get() + worker * size;
      const bool in_range = scatter(tile, 0, sums);
      collect(tile, {0, w.columns}, sums);
      return in_range;
    });
  bool in_range = true;
  for (int64_t tile = 0; tile < plan.tiles; ++tile) {
    in_range &= parallel_items(parts, plan.workers, [&](int64_t part, int64_t) {
      return scatter(tile, part, scratch.get() + part * size);
    });
    parallel_pieces(w.columns, w.columns * parts, [&](int64_t begin, int64_t end) {
      collect(tile, {begin, end}, scratch.get());
      return true;
    });
  }
  return in_range;
}

// dx = dy W, by the order by columns where it has been derived. Returns whether all indices were in
// range. Throws std::bad_alloc.
template <class X, class T, class I>
bool input_gradient(const Activations<const X>& dy, const CsrView<T, I>& w,
                    const ColumnOrder<I>& order, const Activations<X>& dx) {
  if (!order.ccol) return multiply_transposed(dy, w, dx);
  const Scratch<T> reordered(w.nnz);
  bool in_range = parallel_pieces(w.nnz, w.nnz, [&](int64_t begin, int64_t end) {
    return gather(w, order, {begin, end}, reordered.get());
  });
  const T* no_bias = nullptr;
  in_range &= multiply(dy, transposed(w, order, reordered.get()), no_bias, dx);
  return in_range;
}

}  // namespace tts
