// The gradients of the forward product, in one pass over the tiles of a batch.
#pragma once

#include "../kernels/bounds.h"
#include "../kernels/compiled.h"
#include "../kernels/gather.h"
#include "isa.h"
#include "memory.h"
#include "parallel.h"
#include "products.h"

namespace tts {

// y = x W^T + bias has the gradients dw = dy^T x at the nonzeros, dx = dy W and
// db = sum over the samples of dy. The batch is processed in panels of transposed tiles of x and
// dy; each thread takes shares of the rows for dw and db, and of the columns for dx. If there are
// few threads, each transposes every panel for itself, so that no thread waits for another one or
// fetches a tile from the cache of another core; many threads share the tiles. Without the order by
// columns, dx is scattered: in the same pass as dw, or in a pass of its own (plan.h).
template <class X, class T, class I>
struct Gradients {
  Activations<const X> dy, x;  // (batch, w.rows) and (batch, w.columns)
  CsrView<T, I> w;             // its values are read for dx alone
  ColumnOrder<I> order;        // the order by columns, read for dx unless null

  // The results: dw (w.nnz), and unless null db (w.rows) and dx (batch, w.columns).
  T* dw;
  T* db = nullptr;
  Activations<X> dx{nullptr, 0, 0};

  // Returns whether all indices were in range. Throws std::bad_alloc.
  bool compute() const {
    if (x.samples == 0) {
      std::fill(dw, dw + w.nnz, T(0));
      if (db) std::fill(db, db + w.rows, T(0));
      return true;
    }
    if (!dx.data || order.ccol) return by_panels();
    if (scatter_beside<T>(w.columns, lanes())) return scattered();
    Gradients others = *this;
    others.dx.data = nullptr;
    bool in_range = others.by_panels();
    in_range &= multiply_transposed(dy, w, dx);
    return in_range;
  }

 private:
  static constexpr int64_t W = widest_tile<T>;
  static constexpr int64_t piece = 1024;  // features transposed by one thread at a time

  // A panel: the tiles [first, first + count) of x and dy, transposed.
  struct Panel {
    int64_t first, count;
    T* x;
    T* dy;
  };

  int64_t samples_of(int64_t tile) const { return std::min(W, x.samples - tile * W); }
  int64_t lanes() const { return tile_width<T>(std::min(W, x.samples)); }
  int64_t x_size() const { return w.columns * lanes(); }
  int64_t dy_size() const { return w.rows * lanes(); }

  static int64_t pieces(int64_t features) { return (features + piece - 1) / piece; }

  // Transposes some features of tile t.
  void fill(const Activations<const X>& from, int64_t t, Range features, T* tile) const {
    compiled::fill_tile(active_isa(), from.part(t * W, samples_of(t)), features, tile);
  }

  bool by_panels() const {
    const GradientPlan plan =
        make_gradient_plan(w, x.samples, dx.data != nullptr, available_threads());
    const Scratch<T> tiles((x_size() + dy_size()) * plan.panel * plan.panels_at_once);
    const Scratch<T> reordered(dx.data ? w.nnz : 0);
    const CsrView<T, I> by_column = transposed(w, order, reordered.get());
    const auto panel = [&](int64_t first, int64_t which) {
      T* from = tiles.get() + which * (x_size() + dy_size()) * plan.panel;
      return Panel{first, std::min(plan.panel, plan.tiles - first), from,
                   from + x_size() * plan.panel};
    };
    const auto of_rows = split_rows(w, plan.shares);
    const auto of_columns =
        dx.data ? split_rows(by_column, plan.shares) : std::vector<int64_t>(plan.shares + 1, 0);

    if (plan.panels_at_once == plan.workers)  // each thread has tiles of its own
      return parallel_items(plan.shares, plan.workers, [&](int64_t share, int64_t worker) {
        const Range rows{of_rows[share], of_rows[share + 1]};
        const Range columns{of_columns[share], of_columns[share + 1]};
        bool in_range = true;
        if (dx.data) {
          const Range own = nonzeros_of(by_column, columns, in_range);
          in_range &= gather(w, order, own, reordered.get());
        }
        for (int64_t first = 0; first < plan.tiles; first += plan.panel) {
          const Panel own = panel(first, worker);
          for (int64_t t = 0; t < own.count; ++t) {
            fill(x, first + t, {0, w.columns}, own.x + t * x_size());
            fill(dy, first + t, dx.data ? Range{0, w.rows} : rows, own.dy + t * dy_size());
          }
          in_range &= for_weights(own, rows);
          if (dx.data) in_range &= for_input(own, by_column, columns);
        }
        return in_range;
      });

    bool in_range = true;
    if (dx.data)
      in_range &= parallel_items(plan.workers, plan.workers, [&](int64_t i, int64_t) {
        const Range own{w.nnz * i / plan.workers, w.nnz * (i + 1) / plan.workers};
        return gather(w, order, own, reordered.get());
      });
    for (int64_t first = 0; first < plan.tiles; first += plan.panel) {
      const Panel shared = panel(first, 0);
      const int64_t x_pieces = shared.count * pieces(w.columns);
      const int64_t dy_pieces = shared.count * pieces(w.rows);
      parallel_items(x_pieces + dy_pieces, plan.workers, [&](int64_t i, int64_t) {
        const bool of_x = i < x_pieces;
        const Activations<const X>& from = of_x ? x : dy;
        const int64_t item = of_x ? i : i - x_pieces, t = item / pieces(from.features);
        const int64_t begin = item % pieces(from.features) * piece;
        fill(from, first + t, {begin, std::min(begin + piece, from.features)},
             of_x ? shared.x + t * x_size() : shared.dy + t * dy_size());
        return true;
      });
      const int64_t shares = (dx.data ? 2 : 1) * plan.shares;
      in_range &= parallel_items(shares, plan.workers, [&](int64_t i, int64_t) {
        if (i < plan.shares) return for_weights(shared, {of_rows[i], of_rows[i + 1]});
        i -= plan.shares;
        return for_input(shared, by_column, {of_columns[i], of_columns[i + 1]});
      });
    }
    return in_range;
  }

  // dw and db of `rows` from one panel.
  bool for_weights(const Panel& panel, Range rows) const {
    const Isa isa = active_isa();
    const bool pairs = pair_tiles(w.columns);
    bool in_range = true;
    for (int64_t t = 0; t < panel.count;) {
      const T* gradient = panel.dy + t * dy_size();
      const T* input = panel.x + t * x_size();
      const bool accumulate = panel.first + t > 0;
      if (pairs && t + 1 < panel.count && samples_of(panel.first + t + 1) == W) {
        in_range &= compiled::sddmm_rows_of_pair(isa, rows, w, Tiles<T>{gradient, dy_size()},
                                                 Tiles<T>{input, x_size()}, accumulate, dw);
        t += 2;
      } else {
        in_range &= compiled::sddmm_rows(isa, samples_of(panel.first + t), rows, w, gradient, input,
                                         accumulate, dw);
        t += 1;
      }
    }
    for (int64_t t = 0; db && t < panel.count; ++t)
      sum_samples(panel.first + t, rows, panel.dy + t * dy_size());
    return in_range;
  }

  // dx at `columns` from one panel.
  bool for_input(const Panel& panel, const CsrView<T, I>& by_column, Range columns) const {
    bool in_range = true;
    for (int64_t t = 0; t < panel.count; ++t) {
      const int64_t tile = panel.first + t;
      const T* no_bias = nullptr;
      in_range &= compiled::spmm_rows<X, T, I>(active_isa(), columns, by_column, no_bias,
                                               panel.dy + t * dy_size(),
                                               dx.part(tile * W, samples_of(tile)));
    }
    return in_range;
  }

  void sum_samples(int64_t t, Range rows, const T* dy_tile) const {
    compiled::sum_tile(active_isa(), samples_of(t), dy_tile, rows, t > 0, db);
  }

  // Parts of the rows scatter in parallel, each into sums of its own.
  bool scattered() const {
    const Isa isa = active_isa();
    const int64_t parts = scatter_parts(w, 1), part_size = 2 * x_size();
    const int64_t workers = worth_threads(w.nnz + w.rows + w.columns) ? available_threads() : 1;
    const auto bounds = split_rows(w, parts);
    const Scratch<T> column_tiles(part_size * parts), dy_tile(dy_size());
    bool in_range = true;
    for (int64_t t = 0; t * W < x.samples; ++t) {
      const int64_t samples = samples_of(t);
      in_range &= parallel_items(parts, workers, [&](int64_t part, int64_t) {
        const Range rows{bounds[part], bounds[part + 1]};
        T* column_tile = column_tiles.get() + part * part_size;
        compiled::fill_tile_beside_sums(isa, x.part(t * W, samples), {0, w.columns}, column_tile);
        fill(dy, t, rows, dy_tile.get());
        if (db) sum_samples(t, rows, dy_tile.get());
        return compiled::sddmm_scatter_rows(isa, samples, rows, w, dy_tile.get(), column_tile,
                                            t > 0, dw);
      });
      const T* sums = column_tiles.get() + tile_width<T>(samples);
      parallel_items(pieces(w.columns), workers, [&](int64_t i, int64_t) {
        compiled::collect_columns(isa, {i * piece, std::min((i + 1) * piece, w.columns)},
                                  PartialSums<T>{sums, parts, part_size}, true,
                                  dx.part(t * W, samples));
        return true;
      });
    }
    return in_range;
  }
};

}  // namespace tts
