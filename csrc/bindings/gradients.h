// The gradients of the forward product, in one pass over the tiles of a batch.
#pragma once

#include <functional>

#include "../kernels/bounds.h"
#include "../kernels/compiled.h"
#include "../kernels/gather.h"
#include "../kernels/update.h"
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
//
// Where each part of dw is used up at once (`take`), no array of dw exists: groups of rows, whose
// part of dw fits the L1 cache, are computed and taken one after the other. dx is then computed
// from the values as they were before any part was taken.
template <class X, class T, class I>
struct Gradients {
  // Called once for every nonzero of W, in parallel, with the gradient of some consecutive ones;
  // may change their values.
  using Take = std::function<void(Range nonzeros, const T* gradient)>;

  Activations<const X> dy, x;  // (batch, w.rows) and (batch, w.columns)
  CsrView<T, I> w;             // its values are read for dx alone
  ColumnOrder<I> order;        // the order by columns, read for dx unless null

  // The results: dw (w.nnz) unless it is taken, and unless null db (w.rows) and dx (batch,
  // w.columns).
  T* dw;
  T* db = nullptr;
  Activations<X> dx{nullptr, 0, 0};
  const Take* take = nullptr;
  int64_t room = 0;  // set by `compute`: entries of the largest group of rows

  // Returns whether all indices were in range; if not, nothing has been taken, unless the indices
  // were changed meanwhile. Throws std::bad_alloc.
  bool compute() const {
    if (take) return taken();
    if (x.samples == 0) {
      std::fill(dw, dw + w.nnz, T(0));
      if (db) std::fill(db, db + w.rows, T(0));
      return true;
    }
    if (!dx.data || order.ccol) return by_panels({0, w.rows});
    if (scatter_beside<T>(w.columns, lanes())) return scattered();
    Gradients others = *this;
    others.dx.data = nullptr;
    bool in_range = others.by_panels({0, w.rows});
    in_range &= multiply_transposed(dy, w, dx);
    return in_range;
  }

 private:
  static constexpr int64_t W = widest_tile<T>;
  static constexpr int64_t piece = 1024;  // features transposed by one thread at a time
  static constexpr int64_t group_nonzeros = 1 << 12;
  static constexpr int64_t block_nonzeros = 1 << 20;

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

  // Everything for some rows; for all of them, if dx is wanted.
  bool by_panels(Range all) const {
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
    const Scratch<T> groups(room * plan.workers);
    const auto of_rows = split_rows(w, plan.shares, all);
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
          in_range &= for_weights(own, rows, groups.get() + worker * room);
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
      in_range &= parallel_items(shares, plan.workers, [&](int64_t i, int64_t worker) {
        if (i < plan.shares)
          return for_weights(shared, {of_rows[i], of_rows[i + 1]}, groups.get() + worker * room);
        i -= plan.shares;
        return for_input(shared, by_column, {of_columns[i], of_columns[i + 1]});
      });
    }
    return in_range;
  }

  // dw and db of `rows` from one panel; `group` (room) is scratch of the thread.
  bool for_weights(const Panel& panel, Range rows, T* group) const {
    for (int64_t t = 0; db && t < panel.count; ++t)
      sum_samples(panel.first + t, rows, panel.dy + t * dy_size());
    if (!take) return for_weights(panel, rows, dw, panel.first > 0);
    return in_groups(rows, group,
                     [&](Range some, T* out) { return for_weights(panel, some, out, false); });
  }

  // out (+)= dw of `rows` from one panel.
  bool for_weights(const Panel& panel, Range rows, T* out, bool accumulate) const {
    const Isa isa = active_isa();
    const bool pairs = pair_tiles(w.columns);
    bool in_range = true;
    for (int64_t t = 0; t < panel.count;) {
      const T* gradient = panel.dy + t * dy_size();
      const T* input = panel.x + t * x_size();
      accumulate |= t > 0;
      if (pairs && t + 1 < panel.count && samples_of(panel.first + t + 1) == W) {
        in_range &= compiled::sddmm_rows_of_pair(isa, rows, w, Tiles<T>{gradient, dy_size()},
                                                 Tiles<T>{input, x_size()}, accumulate, out);
        t += 2;
      } else {
        in_range &= compiled::sddmm_rows(isa, samples_of(panel.first + t), rows, w, gradient, input,
                                         accumulate, out);
        t += 1;
      }
    }
    return in_range;
  }

  // Calls f(group, out), which writes dw of a group of rows to out[k] for each of its nonzeros k,
  // for all groups of `rows` one after the other, and gives each part of dw to `take`. The row
  // pointers are a checked copy; `scratch` has `room` entries.
  template <class F>
  bool in_groups(Range rows, T* scratch, const F& f) const {
    for (int64_t row = rows.begin; row < rows.end;) {
      const int64_t end = group_end(row, rows.end, group_nonzeros), first = w.crow[row];
      if (!f(Range{row, end}, scratch - first)) return false;
      (*take)({first, w.crow[end]}, scratch);
      row = end;
    }
    return true;
  }

  // The end of the group that begins with `row`: one row, and more while they have no more than
  // `most` nonzeros together.
  int64_t group_end(int64_t row, int64_t last, int64_t most) const {
    int64_t end = row + 1;
    while (end < last && w.crow[end + 1] - w.crow[row] <= most) ++end;
    return end;
  }

  // `compute` where dw is taken.
  bool taken() const {
    const Scratch<int64_t> pointers(w.rows + 1);
    Gradients trusted = *this;
    trusted.w.crow = pointers.get();
    trusted.room = group_nonzeros;
    // The sizes of the groups follow from the row pointers: no other thread may change them.
    std::copy(w.crow, w.crow + w.rows + 1, pointers.get());
    for (int64_t row = 0; row < w.rows; ++row) {
      const int64_t length = pointers.get()[row + 1] - pointers.get()[row];
      if (length < 0) return false;
      trusted.room = std::max(trusted.room, length);
    }
    if (pointers.get()[0] != 0 || pointers.get()[w.rows] != w.nnz) return false;

    const bool beside = dx.data && !order.ccol && x.samples > 0 && x.samples <= W &&
                        scatter_beside<T>(w.columns, lanes());
    // A scatter along the rows reads every column; whatever else comes first, they are checked.
    if ((!dx.data || beside || order.ccol) && !columns_in_range()) return false;
    if (dx.data && !beside && !input_gradient(dy, trusted.w, order, dx)) return false;
    if (beside) return trusted.scattered();
    trusted.dx.data = nullptr;
    if (x.samples == 0) return trusted.without_samples();
    const GradientPlan plan = make_gradient_plan(w, x.samples, false, available_threads());
    return plan.tiles <= plan.panel ? trusted.by_panels({0, w.rows}) : trusted.by_blocks();
  }

  bool columns_in_range() const {
    const Isa isa = active_isa();
    return parallel_pieces(w.nnz, w.nnz / 8, [&](int64_t begin, int64_t end) {
      return run<IndicesInRange<I>>(isa, w.col + begin, end - begin, w.columns);
    });
  }

  bool without_samples() const {
    if (db) std::fill(db, db + w.rows, T(0));
    const Scratch<T> zeros(room);
    std::fill(zeros.get(), zeros.get() + room, T(0));
    return in_groups({0, w.rows}, zeros.get(), [](Range, T*) { return true; });
  }

  // Where several panels add to every sum, dw exists for a block of rows at a time. A block is so
  // large that transposing the tiles again for each costs little.
  bool by_blocks() const {
    const int64_t most = std::max(block_nonzeros, 8 * (w.rows + w.columns));
    const Scratch<T> sums(std::min(w.nnz, std::max(most, room)));
    for (int64_t row = 0; row < w.rows;) {
      const int64_t end = group_end(row, w.rows, most), first = w.crow[row];
      Gradients block = *this;
      block.take = nullptr;
      block.room = 0;
      block.dw = sums.get() - first;
      if (!block.by_panels({row, end})) return false;
      const int64_t count = w.crow[end] - first;
      parallel_pieces(count, count, [&](int64_t from, int64_t to) {
        (*take)({first + from, first + to}, sums.get() + from);
        return true;
      });
      row = end;
    }
    return true;
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
    const Scratch<T> column_tiles(part_size * parts), dy_tile(dy_size()), groups(room * workers);
    bool in_range = true;
    for (int64_t t = 0; t * W < x.samples; ++t) {
      const int64_t samples = samples_of(t);
      in_range &= parallel_items(parts, workers, [&](int64_t part, int64_t worker) {
        const Range rows{bounds[part], bounds[part + 1]};
        T* column_tile = column_tiles.get() + part * part_size;
        compiled::fill_tile_beside_sums(isa, x.part(t * W, samples), {0, w.columns}, column_tile);
        fill(dy, t, rows, dy_tile.get());
        if (db) sum_samples(t, rows, dy_tile.get());
        const auto multiply = [&](Range some, T* out) {
          return compiled::sddmm_scatter_rows(isa, samples, some, w, dy_tile.get(), column_tile,
                                              t > 0, out);
        };
        return take ? in_groups(rows, groups.get() + worker * room, multiply) : multiply(rows, dw);
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
