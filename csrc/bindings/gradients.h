// The gradients of the forward product, in one walk over the tiles of a batch.
#pragma once

#include "../kernels/gather.h"
#include "../kernels/scatter.h"
#include "../kernels/sddmm.h"
#include "../kernels/spmm.h"
#include "../kernels/tile.h"
#include "isa.h"
#include "memory.h"
#include "parallel.h"
#include "products.h"

namespace tts {

// y = x W^T + bias, W (rows, columns), has the gradients dw at the nonzeros, dx = dy W and
// db = sum over the samples of dy. The batch is taken in panels of tiles of x and dy, transposed;
// each thread takes shares of the rows for dw and db, and of the columns for dx. A few threads
// transpose every panel each for themselves, so that they need not wait for one another, nor fetch
// a tile from another core's cache; many threads share the tiles. Where dx does without the
// transposed order, it is scattered: in the same pass as dw, or by itself (plan.h).
template <class T, class X, class I>
struct Gradients {
  // dy (batch, rows) and x (batch, columns) row-major; pointers of W as in kernels/sddmm.h.
  const X* dy;
  const X* x;
  int64_t batch;
  const int64_t* crow;
  const I* col;
  int64_t nnz, rows, columns;

  // What is wanted: dw (nnz) always; db (rows) and dx (batch, columns) unless null. dx needs
  // `values`, and reads the transposed order unless `ccol` is null.
  T* dw = nullptr;
  T* db = nullptr;
  X* dx = nullptr;
  const T* values = nullptr;
  const int64_t* ccol = nullptr;
  const I* row = nullptr;
  const I* permutation = nullptr;

  // Returns whether all indices were in range. Throws std::bad_alloc.
  bool compute() const {
    if (batch == 0) {
      std::fill(dw, dw + nnz, T(0));
      if (db) std::fill(db, db + rows, T(0));
      return true;
    }
    if (!dx || ccol) return by_panels();
    if (scatter_beside<T>(columns, lanes())) return scattered();
    Gradients others = *this;
    others.dx = nullptr;
    bool in_range = others.by_panels();
    in_range &=
        multiply_transposed<T, X, I>(dy, batch, crow, col, values, nnz, dx, rows, columns);
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

  int64_t samples_of(int64_t tile) const { return std::min(W, batch - tile * W); }
  int64_t lanes() const { return tile_width<T>(std::min(W, batch)); }
  int64_t x_size() const { return columns * lanes(); }
  int64_t dy_size() const { return rows * lanes(); }

  static int64_t pieces(int64_t features) { return (features + piece - 1) / piece; }

  // Transposes features [begin, end) of tile t.
  bool fill(const X* from, int64_t features, int64_t t, int64_t begin, int64_t end,
            T* tile) const {
    return for_tile_width<T>(samples_of(t), [&](auto L) {
      return run<FillTile<X, T, L>>(active_isa(), from + t * W * features, samples_of(t),
                                    features, begin, end, tile);
    });
  }

  bool by_panels() const {
    const GradientPlan plan =
        make_gradient_plan<T>(batch, rows, columns, nnz, dx != nullptr, available_threads());
    const Scratch<T> tiles((x_size() + dy_size()) * plan.panel * plan.panels_at_once);
    const Scratch<T> by_column(dx ? nnz : 0);
    const auto panel = [&](int64_t first, int64_t which) {
      T* from = tiles.get() + which * (x_size() + dy_size()) * plan.panel;
      return Panel{first, std::min(plan.panel, plan.tiles - first), from,
                   from + x_size() * plan.panel};
    };
    const auto of_rows = split_rows(crow, rows, nnz, plan.shares);
    const auto of_columns = dx ? split_rows(ccol, columns, nnz, plan.shares)
                               : std::vector<int64_t>(plan.shares + 1, 0);
    const auto reorder = [&](int64_t begin, int64_t end) {
      return gather(values, permutation, nnz, begin, end, by_column.get());
    };

    if (plan.panels_at_once == plan.workers)  // each thread has its own tiles, and waits for none
      return parallel_items(plan.shares, plan.workers, [&](int64_t share, int64_t worker) {
        bool in_range = true;
        if (dx) {
          const RowRange range = row_range(ccol, of_columns[share], of_columns[share + 1], nnz,
                                           in_range);
          in_range &= reorder(range.begin, range.end);
        }
        for (int64_t first = 0; first < plan.tiles; first += plan.panel) {
          const Panel own = panel(first, worker);
          for (int64_t t = 0; t < own.count; ++t) {
            fill(x, columns, first + t, 0, columns, own.x + t * x_size());
            if (dx)
              fill(dy, rows, first + t, 0, rows, own.dy + t * dy_size());
            else
              fill(dy, rows, first + t, of_rows[share], of_rows[share + 1],
                   own.dy + t * dy_size());
          }
          in_range &= for_weights(own, of_rows[share], of_rows[share + 1]);
          if (dx)
            in_range &= for_input(own, by_column.get(), of_columns[share], of_columns[share + 1]);
        }
        return in_range;
      });

    bool in_range = true;
    if (dx)
      in_range &= parallel_items(plan.workers, plan.workers, [&](int64_t i, int64_t) {
        return reorder(nnz * i / plan.workers, nnz * (i + 1) / plan.workers);
      });
    for (int64_t first = 0; first < plan.tiles; first += plan.panel) {
      const Panel shared = panel(first, 0);
      const int64_t x_pieces = shared.count * pieces(columns);
      parallel_items(x_pieces + shared.count * pieces(rows), plan.workers,
                     [&](int64_t i, int64_t) {
                       const bool of_x = i < x_pieces;
                       const int64_t features = of_x ? columns : rows;
                       const int64_t item = of_x ? i : i - x_pieces;
                       const int64_t t = item / pieces(features);
                       const int64_t begin = item % pieces(features) * piece;
                       return fill(of_x ? x : dy, features, first + t, begin,
                                   std::min(begin + piece, features),
                                   of_x ? shared.x + t * x_size() : shared.dy + t * dy_size());
                     });
      in_range &= parallel_items((dx ? 2 : 1) * plan.shares, plan.workers,
                                 [&](int64_t i, int64_t) {
        if (i < plan.shares) return for_weights(shared, of_rows[i], of_rows[i + 1]);
        i -= plan.shares;
        return for_input(shared, by_column.get(), of_columns[i], of_columns[i + 1]);
      });
    }
    return in_range;
  }

  // dw and db of rows [begin, end) from one panel.
  bool for_weights(const Panel& panel, int64_t begin, int64_t end) const {
    const bool pairs = pair_tiles(columns);
    bool in_range = true;
    for (int64_t t = 0; t < panel.count;) {
      const T* gradient = panel.dy + t * dy_size();
      const T* input = panel.x + t * x_size();
      const bool accumulate = panel.first + t > 0;
      const bool pair = pairs && t + 1 < panel.count && samples_of(panel.first + t + 1) == W;
      in_range &= for_tile_width<T>(samples_of(panel.first + t), [&](auto L) {
        if constexpr (L == W)
          if (pair)
            return run<SddmmRows<T, I, L, 2>>(active_isa(), begin, end, crow, col, nnz, columns,
                                              gradient, dy_size(), input, x_size(), accumulate,
                                              dw);
        return run<SddmmRows<T, I, L, 1>>(active_isa(), begin, end, crow, col, nnz, columns,
                                          gradient, int64_t{0}, input, int64_t{0}, accumulate,
                                          dw);
      });
      t += pair ? 2 : 1;
    }
    for (int64_t t = 0; db && t < panel.count; ++t)
      sum_samples(panel.first + t, begin, end, panel.dy + t * dy_size());
    return in_range;
  }

  // dx at columns [begin, end) from one panel.
  bool for_input(const Panel& panel, const T* by_column, int64_t begin, int64_t end) const {
    bool in_range = true;
    for (int64_t t = 0; t < panel.count; ++t) {
      const int64_t samples = samples_of(panel.first + t);
      in_range &= for_tile_width<T>(samples, [&](auto L) {
        return run<SpmmRows<T, I, X, L>>(
            active_isa(), begin, end, ccol, row, by_column, nnz, rows,
            static_cast<const T*>(nullptr), static_cast<const T*>(panel.dy + t * dy_size()),
            dx + (panel.first + t) * W * columns, samples, columns);
      });
    }
    return in_range;
  }

  void sum_samples(int64_t t, int64_t begin, int64_t end, const T* dy_tile) const {
    for_tile_width<T>(samples_of(t), [&](auto L) {
      return run<SumTile<T, L>>(active_isa(), dy_tile, begin, end, t > 0, db);
    });
  }

  // Parts of the rows scatter side by side, each into sums of its own.
  bool scattered() const {
    const Isa isa = active_isa();
    const int64_t parts = scatter_parts(nnz, columns, 1), part_size = 2 * x_size();
    const int64_t workers = worth_threads(nnz + rows + columns) ? available_threads() : 1;
    const auto bounds = split_rows(crow, rows, nnz, parts);
    const Scratch<T> column_tiles(part_size * parts), dy_tile(dy_size());
    bool in_range = true;
    for (int64_t t = 0; t * W < batch; ++t) {
      const int64_t samples = samples_of(t), first = t * W;
      in_range &= for_tile_width<T>(samples, [&](auto L) {
        const bool all = parallel_items(parts, workers, [&](int64_t part, int64_t) {
          const int64_t begin = bounds[part], end = bounds[part + 1];
          T* column_tile = column_tiles.get() + part * part_size;
          run<FillTileBesideSums<X, T, L>>(isa, x + first * columns, samples, columns, int64_t{0},
                                           columns, column_tile);
          fill(dy, rows, t, begin, end, dy_tile.get());
          if (db) sum_samples(t, begin, end, dy_tile.get());
          return run<SddmmScatterRows<T, I, L>>(isa, begin, end, crow, col, values, nnz, columns,
                                                dy_tile.get(), column_tile, t > 0, dw);
        });
        parallel_items(pieces(columns), workers, [&](int64_t i, int64_t) {
          return run<CollectColumns<T, X, L, 2 * L>>(
              isa, i * piece, std::min((i + 1) * piece, columns), parts, part_size,
              column_tiles.get() + L, dx + first * columns, samples, columns);
        });
        return all;
      });
    }
    return in_range;
  }
};

}  // namespace tts
