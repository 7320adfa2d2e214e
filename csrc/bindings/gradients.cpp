// Operators `sddmm`, `spmm_transposed` and `column_sum`, the gradients of the weights, the input and
// the bias by themselves, and `spmm_backward`, all of them in one walk over the batch.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "../kernels/column_sum.h"
#include "../kernels/gather.h"
#include "checks.h"
#include "gradients.h"
#include "products.h"

namespace tts {
namespace {

Tensor sddmm(const Tensor& grad_output, const Tensor& input, const Tensor& crow_indices,
             const Tensor& col_indices) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const ScalarType sums = sum_type(dy, "grad_output");
  const Tensor x = prepared(input, "input", 2, dy.scalar_type());
  const Tensor crow = prepared(crow_indices, "crow_indices", 1, ScalarType::Long);
  const Tensor col = prepared(col_indices, "col_indices", 1);
  const int64_t batch = x.size(0), columns = x.size(1), nnz = col.numel();
  const int64_t rows = rows_of(crow, "crow_indices");
  check_size(dy.size(0), batch, "grad_output", "as many samples as `input`");
  check_size(dy.size(1), rows, "grad_output", "out_features");
  check_covered(crow, nnz, "sddmm");
  if (columns == 0 && nnz > 0) check_in_range(false, "sddmm");

  Tensor output = recycled({nnz}, sums);
  for_activation_type(x, [&](auto stored, auto sum) {
    using X = decltype(stored);
    using T = decltype(sum);
    for_index_type(col, "col_indices", [&](auto index) {
      using I = decltype(index);
      Gradients<T, X, I> gradients{data<X>(dy), data<X>(x), batch, data<int64_t>(crow),
                                   data<I>(col), nnz, rows, columns};
      gradients.dw = mutable_data<T>(output);
      check_in_range(gradients.compute(), "sddmm");
    });
  });
  return output;
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

  Tensor output = recycled({batch, columns}, dy.scalar_type());
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

Tensor column_sum(const Tensor& grad_output) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const int64_t batch = dy.size(0), columns = dy.size(1);
  Tensor output = recycled({columns}, sum_type(dy, "grad_output"));
  for_activation_type(dy, [&](auto stored, auto sum) {
    using X = decltype(stored);
    using T = decltype(sum);
    constexpr int64_t piece = 64;  // columns summed together: a few cache lines
    const Isa isa = active_isa();
    parallel_pieces((columns + piece - 1) / piece, batch * columns / 16, [&](int64_t b, int64_t e) {
      return run<ColumnSum<X, T>>(isa, data<X>(dy), batch, columns, b * piece,
                                  std::min(e * piece, columns), mutable_data<T>(output));
    });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> spmm_backward(
    const Tensor& grad_output, const Tensor& input, const Tensor& crow_indices,
    const Tensor& col_indices, const Tensor& values, bool for_input, bool for_bias,
    const std::optional<Tensor>& ccol_indices, const std::optional<Tensor>& row_indices,
    const std::optional<Tensor>& permutation) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const ScalarType sums = sum_type(dy, "grad_output");
  const Tensor x = prepared(input, "input", 2, dy.scalar_type());
  const Tensor crow = prepared(crow_indices, "crow_indices", 1, ScalarType::Long);
  const Tensor col = prepared(col_indices, "col_indices", 1);
  const Tensor v = prepared(values, "values", 1, sums);
  const int64_t batch = x.size(0), columns = x.size(1), nnz = v.numel();
  const int64_t rows = rows_of(crow, "crow_indices");
  check_size(col.numel(), nnz, "col_indices", "one for each of `values`");
  check_size(dy.size(0), batch, "grad_output", "as many samples as `input`");
  check_size(dy.size(1), rows, "grad_output", "out_features");
  check_covered(crow, nnz, "spmm_backward");
  if (columns == 0 && nnz > 0) check_in_range(false, "spmm_backward");

  Tensor dw = recycled({nnz}, sums);
  Tensor dx = recycled({for_input ? batch : 0, columns}, dy.scalar_type());
  Tensor db = recycled({for_bias ? rows : 0}, sums);
  const bool ordered = for_input && ccol_indices && row_indices && permutation &&
                       batch > scatter_batch;
  for_activation_type(dy, [&](auto stored, auto sum) {
    using X = decltype(stored);
    using T = decltype(sum);
    for_index_type(col, "col_indices", [&](auto index) {
      using I = decltype(index);
      Gradients<T, X, I> gradients{data<X>(dy), data<X>(x), batch, data<int64_t>(crow),
                                   data<I>(col), nnz, rows, columns};
      gradients.dw = mutable_data<T>(dw);
      if (for_bias) gradients.db = mutable_data<T>(db);
      if (for_input) gradients.dx = mutable_data<X>(dx);
      gradients.values = data<T>(v);
      if (!ordered) return check_in_range(gradients.compute(), "spmm_backward");

      const Tensor ccol = prepared(*ccol_indices, "ccol_indices", 1, ScalarType::Long);
      const Tensor row = prepared(*row_indices, "row_indices", 1, col.scalar_type());
      const Tensor order = prepared(*permutation, "permutation", 1, col.scalar_type());
      check_size(ccol.numel(), columns + 1, "ccol_indices", "in_features + 1");
      check_size(row.numel(), nnz, "row_indices", "one for each of `values`");
      check_size(order.numel(), nnz, "permutation", "one for each of `values`");
      check_covered(ccol, nnz, "spmm_backward");
      gradients.ccol = data<int64_t>(ccol);
      gradients.row = data<I>(row);
      gradients.permutation = data<I>(order);
      check_in_range(gradients.compute(), "spmm_backward");
    });
  });
  return {dx, dw, db};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "sddmm(Tensor grad_output, Tensor input, Tensor crow_indices, Tensor col_indices) "
      "-> Tensor");
  m.def(
      "spmm_transposed(Tensor grad_output, Tensor crow_indices, Tensor col_indices, "
      "Tensor values, SymInt in_features, Tensor? ccol_indices=None, "
      "Tensor? row_indices=None, Tensor? permutation=None) -> Tensor");
  m.def("column_sum(Tensor grad_output) -> Tensor");
  m.def(
      "spmm_backward(Tensor grad_output, Tensor input, Tensor crow_indices, Tensor col_indices, "
      "Tensor values, bool for_input, bool for_bias, Tensor? ccol_indices=None, "
      "Tensor? row_indices=None, Tensor? permutation=None) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("sddmm", TORCH_BOX(&sddmm));
  m.impl("spmm_transposed", TORCH_BOX(&spmm_transposed));
  m.impl("spmm_backward", TORCH_BOX(&spmm_backward));
  m.impl("column_sum", TORCH_BOX(&column_sum));
}

}  // namespace tts
