// Operators `spmm` and `spmm_transposed`: the forward product and the input gradient.
#include "../kernels/spmm.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "../kernels/gather.h"
#include "../kernels/scatter.h"
#include "checks.h"
#include "tiles.h"

namespace tts {
namespace {

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

Tensor spmm(const Tensor& input, const Tensor& crow_indices, const Tensor& col_indices,
            const Tensor& values, const std::optional<Tensor>& bias) {
  const Tensor x = prepared(input, "input", 2);
  const ScalarType sums = sum_type(x, "input");
  const Tensor v = prepared(values, "values", 1, sums);
  const Tensor crow = prepared(crow_indices, "crow_indices", 1, ScalarType::Long);
  const Tensor col = prepared(col_indices, "col_indices", 1);
  const int64_t rows = rows_of(crow, "crow_indices"), nnz = v.numel();
  const int64_t batch = x.size(0), columns = x.size(1);
  check_size(col.numel(), nnz, "col_indices", "one for each of `values`");
  std::optional<Tensor> b;
  if (bias.has_value()) {
    b = prepared(*bias, "bias", 1, sums);
    check_size(b->numel(), rows, "bias", "out_features");
  }
  check_covered(crow, nnz, "spmm");
  if (columns == 0 && nnz > 0) check_in_range(false, "spmm");

  Tensor output = fresh(x, {batch, rows}, x.scalar_type());
  for_activation_type(x, [&](auto stored, auto sum) {
    using X = decltype(stored);
    using T = decltype(sum);
    for_index_type(col, "col_indices", [&](auto index) {
      using I = decltype(index);
      check_in_range(multiply(data<X>(x), batch, data<int64_t>(crow), data<I>(col), data<T>(v),
                              nnz, b ? data<T>(*b) : nullptr, mutable_data<X>(output), rows,
                              columns),
                     "spmm");
    });
  });
  return output;
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
      return scatter(tile, 0, sums) & collect(tile, 0, columns, sums);
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

Tensor spmm_transposed(const Tensor& grad_output, const Tensor& crow_indices,
                       const Tensor& col_indices, const Tensor& values, int64_t in_features,
                       const std::optional<Tensor>& ccol_indices,
                       const std::optional<Tensor>& row_indices,
                       const std::optional<Tensor>& permutation) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const Tensor v = prepared(values, "values", 1, sum_type(dy, "grad_output"));
  const Tensor crow = prepared(crow_indices, "crow_indices", 1, ScalarType::Long);
  const Tensor col = prepared(col_indices, "col_indices", 1);
  const int64_t columns = in_features, rows = rows_of(crow, "crow_indices"), nnz = v.numel();
  const int64_t batch = dy.size(0);
  if (columns < 0) refuse("`in_features` must not be negative");
  check_size(col.numel(), nnz, "col_indices", "one for each of `values`");
  check_size(dy.size(1), rows, "grad_output", "out_features");
  check_covered(crow, nnz, "spmm_transposed");
  if ((rows == 0 || columns == 0) && nnz > 0) check_in_range(false, "spmm_transposed");

  Tensor output = fresh(dy, {batch, columns}, dy.scalar_type());
  const bool ordered = ccol_indices && row_indices && permutation && batch > scatter_batch;
  for_activation_type(dy, [&](auto stored, auto sum) {
    using X = decltype(stored);
    using T = decltype(sum);
    for_index_type(col, "col_indices", [&](auto index) {
      using I = decltype(index);
      bool in_range = true;
      if (ordered) {
        const Tensor ccol = prepared(*ccol_indices, "ccol_indices", 1, ScalarType::Long);
        const Tensor row = prepared(*row_indices, "row_indices", 1, col.scalar_type());
        const Tensor order = prepared(*permutation, "permutation", 1, col.scalar_type());
        check_size(ccol.numel(), columns + 1, "ccol_indices", "in_features + 1");
        check_size(row.numel(), nnz, "row_indices", "one for each of `values`");
        check_size(order.numel(), nnz, "permutation", "one for each of `values`");
        check_covered(ccol, nnz, "spmm_transposed");
        const Scratch<T> reordered(nnz);
        in_range &= parallel_pieces(nnz, nnz, [&](int64_t begin, int64_t end) {
          return gather(data<T>(v), data<I>(order), nnz, begin, end, reordered.get());
        });
        in_range &= multiply<T, X, I>(data<X>(dy), batch, data<int64_t>(ccol), data<I>(row),
                                      reordered.get(), nnz, nullptr, mutable_data<X>(output),
                                      columns, rows);
      } else {
        in_range &= multiply_transposed<T, X, I>(data<X>(dy), batch, data<int64_t>(crow),
                                                 data<I>(col), data<T>(v), nnz,
                                                 mutable_data<X>(output), rows, columns);
      }
      check_in_range(in_range, "spmm_transposed");
    });
  });
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "spmm(Tensor input, Tensor crow_indices, Tensor col_indices, Tensor values, "
      "Tensor? bias=None) -> Tensor");
  m.def(
      "spmm_transposed(Tensor grad_output, Tensor crow_indices, Tensor col_indices, "
      "Tensor values, SymInt in_features, Tensor? ccol_indices=None, "
      "Tensor? row_indices=None, Tensor? permutation=None) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("spmm", TORCH_BOX(&spmm));
  m.impl("spmm_transposed", TORCH_BOX(&spmm_transposed));
}

}  // namespace tts
