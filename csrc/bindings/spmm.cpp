// Operators `spmm` and `spmm_transposed`: the forward product and the input gradient.
#include "../kernels/spmm.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "../kernels/gather.h"
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

Tensor spmm_transposed(const Tensor& grad_output, const Tensor& ccol_indices,
                       const Tensor& row_indices, const Tensor& permutation,
                       const Tensor& values) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const Tensor v = prepared(values, "values", 1, sum_type(dy, "grad_output"));
  const Tensor ccol = prepared(ccol_indices, "ccol_indices", 1, ScalarType::Long);
  const Tensor row = prepared(row_indices, "row_indices", 1);
  const Tensor order = prepared(permutation, "permutation", 1, row.scalar_type());
  const int64_t columns = rows_of(ccol, "ccol_indices"), nnz = v.numel();
  const int64_t batch = dy.size(0), rows = dy.size(1);
  check_size(row.numel(), nnz, "row_indices", "one for each of `values`");
  check_size(order.numel(), nnz, "permutation", "one for each of `values`");
  if (rows == 0 && nnz > 0) check_in_range(false, "spmm_transposed");

  Tensor output = fresh(dy, {batch, columns}, dy.scalar_type());
  for_activation_type(dy, [&](auto stored, auto sum) {
    using X = decltype(stored);
    using T = decltype(sum);
    for_index_type(row, "row_indices", [&](auto index) {
      using I = decltype(index);
      const Scratch<T> ordered(nnz);
      bool in_range = parallel_pieces(nnz, nnz, [&](int64_t begin, int64_t end) {
        return gather(data<T>(v), data<I>(order), nnz, begin, end, ordered.get());
      });
      in_range &= multiply<T, X, I>(data<X>(dy), batch, data<int64_t>(ccol), data<I>(row),
                                    ordered.get(), nnz, nullptr, mutable_data<X>(output), columns,
                                    rows);
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
      "spmm_transposed(Tensor grad_output, Tensor ccol_indices, Tensor row_indices, "
      "Tensor permutation, Tensor values) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("spmm", TORCH_BOX(&spmm));
  m.impl("spmm_transposed", TORCH_BOX(&spmm_transposed));
}

}  // namespace tts
