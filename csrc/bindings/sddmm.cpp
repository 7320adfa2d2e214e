// Operators `sddmm` and `column_sum`: the gradients of the nonzero weights and of the bias.
#include "../kernels/sddmm.h"

#include <torch/csrc/stable/library.h>

#include "../kernels/column_sum.h"
#include "checks.h"
#include "tiles.h"

namespace tts {
namespace {

template <class T, class X, class I>
bool sample_products(const X* dy, const X* x, int64_t batch, const int64_t* crow, const I* col,
                     int64_t nnz, int64_t rows, int64_t columns, T* out) {
  const Isa isa = active_isa();
  if (batch == 0) std::fill(out, out + nnz, T(0));
  const Plan plan = make_plan<T>(batch, columns, nnz, rows, available_threads(), false);
  return for_each_tile<T>(
      plan, x, batch, columns, crow, rows, nnz,
      [&](auto L, int64_t begin, int64_t end, int64_t first, int64_t samples, const T* tile) {
        return run<SddmmRows<T, I, X, L>>(isa, begin, end, crow, col, nnz, columns,
                                          dy + first * rows, samples, rows, tile, first > 0, out);
      });
}

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

  Tensor output = fresh(x, {nnz}, sums);
  for_activation_type(x, [&](auto stored, auto sum) {
    using X = decltype(stored);
    using T = decltype(sum);
    for_index_type(col, "col_indices", [&](auto index) {
      using I = decltype(index);
      check_in_range(sample_products(data<X>(dy), data<X>(x), batch, data<int64_t>(crow),
                                     data<I>(col), nnz, rows, columns, mutable_data<T>(output)),
                     "sddmm");
    });
  });
  return output;
}

Tensor column_sum(const Tensor& grad_output) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const int64_t batch = dy.size(0), columns = dy.size(1);
  Tensor output = fresh(dy, {columns}, sum_type(dy, "grad_output"));
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

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "sddmm(Tensor grad_output, Tensor input, Tensor crow_indices, Tensor col_indices) "
      "-> Tensor");
  m.def("column_sum(Tensor grad_output) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("sddmm", TORCH_BOX(&sddmm));
  m.impl("column_sum", TORCH_BOX(&column_sum));
}

}  // namespace tts
