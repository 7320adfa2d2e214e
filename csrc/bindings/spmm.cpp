// Operators `spmm` and `spmm_transposed`: the forward product and the input gradient.
#include "../kernels/spmm.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "../kernels/gather.h"
#include "checks.h"
#include "parallel.h"

namespace tts {
namespace {

// y = x W^T + bias, for W (rows, columns) in compressed rows. All pointers as in kernels/spmm.h;
// x is (batch, columns) row-major.
template <class T, class I>
bool multiply(const T* x, int64_t batch, const int64_t* crow, const I* col, const T* values,
              int64_t nnz, const T* bias, T* y, int64_t rows, int64_t columns) {
  const Isa isa = active_isa();
  return for_tile_width(batch, [&](auto width) {
    constexpr int L = decltype(width)::value;
    return for_each_tile<L>(isa, x, batch, columns, [&](int64_t first, int64_t samples,
                                                        const T* tile) {
      return parallel_rows(crow, rows, nnz, (nnz + rows) * L, [&](int64_t begin, int64_t end) {
        return run<SpmmRows<T, I, L>>(isa, begin, end, crow, col, values, nnz, columns, bias, tile,
                                      y + first * rows, samples, rows);
      });
    });
  });
}

Tensor spmm(const Tensor& input, const Tensor& crow_indices, const Tensor& col_indices,
            const Tensor& values, const std::optional<Tensor>& bias) {
  const Tensor x = prepared(input, "input", 2), v = prepared(values, "values", 1, x.scalar_type());
  const Tensor crow = prepared(crow_indices, "crow_indices", 1, ScalarType::Long);
  const Tensor col = prepared(col_indices, "col_indices", 1);
  const int64_t rows = rows_of(crow, "crow_indices"), nnz = v.numel();
  const int64_t batch = x.size(0), columns = x.size(1);
  check_size(col.numel(), nnz, "col_indices", "one for each of `values`");
  std::optional<Tensor> b;
  if (bias.has_value()) {
    b = prepared(*bias, "bias", 1, x.scalar_type());
    check_size(b->numel(), rows, "bias", "out_features");
  }
  if (columns == 0 && nnz > 0) check_in_range(false, "spmm");

  Tensor output = torch::stable::new_empty(x, {batch, rows});
  for_value_type(x, "input", [&](auto value) {
    using T = decltype(value);
    for_index_type(col, "col_indices", [&](auto index) {
      using I = decltype(index);
      check_in_range(
          multiply(x.const_data_ptr<T>(), batch, crow.const_data_ptr<int64_t>(),
                   col.const_data_ptr<I>(), v.const_data_ptr<T>(), nnz,
                   b ? b->const_data_ptr<T>() : nullptr, output.mutable_data_ptr<T>(), rows,
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
  const Tensor v = prepared(values, "values", 1, dy.scalar_type());
  const Tensor ccol = prepared(ccol_indices, "ccol_indices", 1, ScalarType::Long);
  const Tensor row = prepared(row_indices, "row_indices", 1);
  const Tensor order = prepared(permutation, "permutation", 1, row.scalar_type());
  const int64_t columns = rows_of(ccol, "ccol_indices"), nnz = v.numel();
  const int64_t batch = dy.size(0), rows = dy.size(1);
  check_size(row.numel(), nnz, "row_indices", "one for each of `values`");
  check_size(order.numel(), nnz, "permutation", "one for each of `values`");
  if (rows == 0 && nnz > 0) check_in_range(false, "spmm_transposed");

  Tensor output = torch::stable::new_empty(dy, {batch, columns});
  for_value_type(dy, "grad_output", [&](auto value) {
    using T = decltype(value);
    for_index_type(row, "row_indices", [&](auto index) {
      using I = decltype(index);
      const std::unique_ptr<T[]> ordered(new T[static_cast<size_t>(nnz)]);
      bool in_range = parallel_pieces(nnz, nnz, [&](int64_t begin, int64_t end) {
        return gather(v.const_data_ptr<T>(), order.const_data_ptr<I>(), nnz, begin, end,
                      ordered.get());
      });
      in_range &= multiply<T, I>(dy.const_data_ptr<T>(), batch, ccol.const_data_ptr<int64_t>(),
                                 row.const_data_ptr<I>(), ordered.get(), nnz, nullptr,
                                 output.mutable_data_ptr<T>(), columns, rows);
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
