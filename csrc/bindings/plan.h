// Every choice that the products make: the width of tiles, what runs in parallel, how much scratch.
//
// The choices follow from shapes and cache sizes. A choice that changes the order of a sum (the
// width of the tiles) does not depend on the number of threads, so neither do the bits of a result.
#pragma once

#include <algorithm>
#include <cstdint>

#if defined(__linux__)
#include <unistd.h>
#endif

#include "../kernels/tile.h"
#include "../kernels/views.h"

namespace tts {

// Cache sizes in bytes, as the system says, clamped to a plausible share of one core.
struct Caches {
  int64_t l2, l3;
};

inline const Caches& caches() {
  static const Caches found = [] {
    int64_t l2 = 0, l3 = 0;
#if defined(__linux__) && defined(_SC_LEVEL2_CACHE_SIZE)
    l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    constexpr int64_t kib = 1024, mib = 1024 * kib;
    return Caches{l2 > 0 ? std::clamp(l2, 256 * kib, 4 * mib) : mib,
                  l3 > 0 ? std::clamp(l3, 4 * mib, 32 * mib) : 16 * mib};
  }();
  return found;
}

// One visit of a nonzero (load its index and value, multiply a row of the tile) takes 0.4 to 1 ns
// from L2, a fork and join about 5 microseconds (both measured). Fewer visits than `serial_visits`
// are not worth a second thread.
constexpr int64_t serial_visits = 1 << 14;

constexpr bool worth_threads(int64_t visits) { return visits >= serial_visits; }

// How a product over a batch runs.
struct Plan {
  int64_t tiles;     // number of tiles of the batch, the last one possibly narrower
  int64_t panel;     // number of transposed tiles held at a time
  bool tiles_apart;  // each thread takes whole tiles; otherwise all share the rows of a panel
  int64_t workers;   // number of threads that take part
};

// The plan of a product of W with `batch` samples of w.columns features each.
template <class T, class I>
Plan make_plan(const CsrView<T, I>& w, int64_t batch, int64_t threads) {
  constexpr int64_t L = widest_tile<T>;
  Plan plan{};
  plan.tiles = (batch + L - 1) / L;
  const int64_t visits = (w.nnz + w.rows + w.columns) * plan.tiles;
  plan.workers = worth_threads(visits) ? threads : 1;
  // Where each thread takes whole tiles, one fork suffices, and no barrier separates filling a tile
  // from using it. With few tiles some threads would be idle at the end; then all threads share the
  // rows of each tile.
  plan.tiles_apart =
      plan.workers == 1 || plan.tiles % plan.workers == 0 || plan.tiles >= 4 * plan.workers;
  const int64_t tile_bytes = std::max<int64_t>(
      1, w.columns * tile_width<T>(std::min(batch, L)) * static_cast<int64_t>(sizeof(T)));
  plan.panel =
      std::clamp<int64_t>(caches().l3 / 4 / tile_bytes, 1, std::max<int64_t>(plan.tiles, 1));
  return plan;
}

// Whether the products of a nonzero with two tiles of the activations are summed together
// (kernels/sddmm.h), which is done if both tiles fit L2. The pairs are tiles 0 and 1, 2 and 3, ...,
// however the batch is divided into panels.
inline bool pair_tiles(int64_t columns) { return 2 * columns * widest_tile_bytes <= caches().l2; }

// How the gradients run.
struct GradientPlan {
  int64_t tiles;           // number of tiles of the batch, the last one possibly narrower
  int64_t panel;           // number of transposed tiles held at a time; even where pairs are summed
  int64_t workers;         // number of threads that take part
  int64_t panels_at_once;  // one for each worker, or one for all
  int64_t shares;          // number of parts of the rows, and of the columns, that threads take
};

template <class T, class I>
GradientPlan make_gradient_plan(const CsrView<T, I>& w, int64_t batch, bool for_input,
                                int64_t threads) {
  GradientPlan plan{};
  plan.tiles = (batch + widest_tile<T> - 1) / widest_tile<T>;
  plan.workers = worth_threads((w.nnz + w.rows + w.columns) * plan.tiles) ? threads : 1;
  const int64_t most = std::max<int64_t>(plan.tiles, 1);
  const int64_t bytes = std::max<int64_t>(1, (w.rows + w.columns) * widest_tile_bytes);
  const int64_t least = pair_tiles(w.columns) ? std::min<int64_t>(2, most) : 1;
  // Transposing a feature costs about half a visit. The tiles of all threads must fit half of L3.
  const int64_t visits = (for_input ? 2 : 1) * w.nnz / plan.workers;
  if (visits >= 2 * (w.rows + w.columns) && plan.workers * bytes <= caches().l3 / 2) {
    plan.panels_at_once = plan.shares = plan.workers;
    plan.panel = least;
  } else {
    plan.panels_at_once = 1;
    plan.shares = plan.workers == 1 ? 1 : 2 * plan.workers;
    plan.panel = std::clamp<int64_t>(caches().l3 / 4 / bytes / 2 * 2, least, most);
  }
  return plan;
}

// The input gradient reads the weights in the order by columns if this order is given and the batch
// is larger than `scatter_batch`; otherwise it scatters along the rows. For smaller batches, the
// pass that gathers `values` costs more than the stores of the scatter (measured: equal at 16
// samples, twice the time at 2).
constexpr int64_t scatter_batch = 16;

// How many parts of the rows scatter in parallel, each into sums of its own that are added up
// afterwards. The number follows from shapes alone, so that the bits of a result do not depend on
// the threads; it is a power of two, so that the parts divide evenly among threads; and it is small
// enough for the clearing and adding of the sums to stay a fraction of the work.
template <class T, class I>
int64_t scatter_parts(const CsrView<T, I>& w, int64_t tiles) {
  int64_t parts = 1;
  while (tiles * parts < 8 && w.nnz >= serial_visits && w.nnz / (2 * parts) >= 16 * w.columns)
    parts *= 2;
  return parts;
}

// Whether the scatter runs in the same pass as the gradient of the weights, which is done if a tile
// that holds the activations and the sums side by side fits L2. For larger tiles, two passes over
// half of the tile each are faster (measured, two passes against one: 13.8 against 17 ms for
// 300,000 x 300,000 at 2 samples; 0.09 against 0.075 ms for 3312 x 3000, which fits L2).
template <class T>
bool scatter_beside(int64_t columns, int64_t lanes) {
  return 2 * columns * lanes * static_cast<int64_t>(sizeof(T)) <= caches().l2;
}

}  // namespace tts
