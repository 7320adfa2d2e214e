// Walks a product over the tiles of a batch, as plan.h decides.
#pragma once

#include "../kernels/tile.h"
#include "isa.h"
#include "memory.h"
#include "parallel.h"

namespace tts {

// Calls product(L, row_begin, row_end, first_sample, samples, tile) for every tile and every row
// of [0, rows), where tile is (features, L): samples [first_sample, first_sample + samples) of
// x (batch, features), side by side. For given rows the tiles come in the order of the samples,
// one after the other, unless the plan takes them apart.
// Returns whether all calls did. Throws std::bad_alloc; product must not throw.
template <class T, class X, class Product>
bool for_each_tile(const Plan& plan, const X* x, int64_t batch, int64_t features,
                   const int64_t* crow, int64_t rows, int64_t nnz, const Product& product) {
  constexpr int64_t W = widest_tile<T>;
  const Isa isa = active_isa();
  const auto samples_of = [&](int64_t tile) { return std::min(W, batch - tile * W); };
  const auto fill = [&](int64_t t, int64_t begin, int64_t end, T* tile) {
    return for_tile_width<T>(samples_of(t), [&](auto L) {
      return run<FillTile<X, T, L>>(isa, x + t * W * features, samples_of(t), features, begin,
                                    end, tile);
    });
  };
  const auto multiply = [&](int64_t t, int64_t begin, int64_t end, const T* tile) {
    return for_tile_width<T>(samples_of(t), [&](auto L) {
      return product(L, begin, end, t * W, samples_of(t), tile);
    });
  };
  // One sample in the type of the sums is its own tile.
  const auto is_tile = [&](int64_t t) { return std::is_same_v<T, X> && samples_of(t) == 1; };
  const auto own = [&](int64_t t) { return reinterpret_cast<const T*>(x + t * W * features); };

  const int64_t tile_size = features * tile_width<T>(std::min(W, batch));
  if (plan.tiles_apart) {
    const int64_t workers = std::min(plan.workers, plan.tiles);
    const Scratch<T> tiles(tile_size * (plan.tiles == 1 && is_tile(0) ? 0 : workers));
    return parallel_items(plan.tiles, workers, [&](int64_t t, int64_t worker) {
      if (is_tile(t)) return multiply(t, 0, rows, own(t));
      T* tile = tiles.get() + worker * tile_size;
      fill(t, 0, features, tile);
      return multiply(t, 0, rows, tile);
    });
  }

  constexpr int64_t piece = 1024;  // features transposed by one thread at a time
  const int64_t pieces = (features + piece - 1) / piece;
  const std::vector<int64_t> shares = split_rows(
      crow, rows, nnz, std::clamp<int64_t>(rows, 1, plan.workers == 1 ? 1 : 4 * plan.workers));
  const auto number_of_shares = static_cast<int64_t>(shares.size()) - 1;
  const Scratch<T> panel(tile_size * plan.panel);
  bool in_range = true;
  for (int64_t first = 0; first < plan.tiles; first += plan.panel) {
    const int64_t tiles = std::min(plan.panel, plan.tiles - first);
    parallel_items(tiles * pieces, plan.workers, [&](int64_t item, int64_t) {
      const int64_t t = item / pieces, begin = item % pieces * piece;
      if (is_tile(first + t)) return true;
      return fill(first + t, begin, std::min(begin + piece, features),
                  panel.get() + t * tile_size);
    });
    in_range &= parallel_items(number_of_shares, plan.workers, [&](int64_t share, int64_t) {
      bool all = true;
      for (int64_t t = 0; t < tiles; ++t)
        all &= multiply(first + t, shares[share], shares[share + 1],
                        is_tile(first + t) ? own(first + t) : panel.get() + t * tile_size);
      return all;
    });
  }
  return in_range;
}

}  // namespace tts
