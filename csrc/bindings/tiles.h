// Runs a product over the tiles of a batch, according to a plan (plan.h).
#pragma once

#include "../kernels/compiled.h"
#include "isa.h"
#include "memory.h"
#include "parallel.h"

namespace tts {

// Calls product(rows, first, samples, tile) so that every tile meets every row of W once. `tile`
// (x.features, L) holds samples [first, first + samples) of x, side by side. For given rows, the
// tiles come one after the other in the order of the samples, unless threads take whole tiles
// (plan.tiles_apart). Each call returns whether all its indices were in range; this function
// returns whether all calls did. Throws std::bad_alloc; product must not throw.
template <class X, class T, class I, class Product>
bool for_each_tile(const Plan& plan, const Activations<const X>& x, const CsrView<T, I>& w,
                   const Product& product) {
  constexpr int64_t W = widest_tile<T>;
  const Isa isa = active_isa();
  const int64_t batch = x.samples, features = x.features;
  const auto samples_of = [&](int64_t tile) { return std::min(W, batch - tile * W); };
  const auto fill = [&](int64_t t, Range some, T* tile) {
    compiled::fill_tile(isa, x.part(t * W, samples_of(t)), some, tile);
  };
  const auto multiply = [&](int64_t t, Range rows, const T* tile) {
    return product(rows, t * W, samples_of(t), tile);
  };
  // A tile of one sample that is stored in the type of the sums needs no transposed copy.
  const auto is_tile = [&](int64_t t) { return std::is_same_v<T, X> && samples_of(t) == 1; };
  const auto own = [&](int64_t t) { return reinterpret_cast<const T*>(x.data + t * W * features); };

  const int64_t tile_size = features * tile_width<T>(std::min(W, batch));
  if (plan.tiles_apart) {
    const int64_t workers = std::min(plan.workers, plan.tiles);
    const Scratch<T> tiles(tile_size * (plan.tiles == 1 && is_tile(0) ? 0 : workers));
    return parallel_items(plan.tiles, workers, [&](int64_t t, int64_t worker) {
      if (is_tile(t)) return multiply(t, {0, w.rows}, own(t));
      T* tile = tiles.get() + worker * tile_size;
      fill(t, {0, features}, tile);
      return multiply(t, {0, w.rows}, tile);
    });
  }

  constexpr int64_t piece = 1024;  // features transposed by one thread at a time
  const int64_t pieces = (features + piece - 1) / piece;
  const std::vector<int64_t> shares =
      split_rows(w, std::clamp<int64_t>(w.rows, 1, plan.workers == 1 ? 1 : 4 * plan.workers));
  const auto number_of_shares = static_cast<int64_t>(shares.size()) - 1;
  const Scratch<T> panel(tile_size * plan.panel);
  bool in_range = true;
  for (int64_t first = 0; first < plan.tiles; first += plan.panel) {
    const int64_t tiles = std::min(plan.panel, plan.tiles - first);
    parallel_items(tiles * pieces, plan.workers, [&](int64_t item, int64_t) {
      const int64_t t = item / pieces, begin = item % pieces * piece;
      if (!is_tile(first + t))
        fill(first + t, {begin, std::min(begin + piece, features)}, panel.get() + t * tile_size);
      return true;
    });
    in_range &= parallel_items(number_of_shares, plan.workers, [&](int64_t share, int64_t) {
      bool all = true;
      for (int64_t t = 0; t < tiles; ++t)
        all &= multiply(first + t, {shares[share], shares[share + 1]},
                        is_tile(first + t) ? own(first + t) : panel.get() + t * tile_size);
      return all;
    });
  }
  return in_range;
}

}  // namespace tts
