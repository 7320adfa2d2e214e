// Operators `sddmm`, `spmm_transposed` and `column_sum`, which compute the gradients of the
// weights, the input and the bias, and `spmm_backward`, which computes all three in one pass over
// the batch.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "../kernels/column_sum.h"
#include "../kernels/denormals.h"
#include "gradients.h"
#include "matrix.h"
#include "products.h"

namespace tts {
namespace {

Tensor sddmm(const Tensor& grad_output, const Tensor& input, const Tensor& crow_indices,
             const Tensor& col_indices) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const ScalarType sums = sum_type(dy, "grad_output");
  const Tensor x = prepared(input, "input", 2, dy.scalar_type());
  const Matrix w = checked_matrix("sddmm", crow_indices, col_indices, x.size(1));
  check_grad_output(dy, x, w);

  Tensor output = recycled({w.nnz}, sums);
  for_product_types(x, w, [&](auto stored, auto sum, auto index) {
    using X = decltype(stored);
    using T = decltype(sum);
    using I = decltype(index);
    const Gradients<X, T, I> gradients{activations<X>(dy), activations<X>(x), w.view<T, I>(),
                                       no_order<I>, mutable_data<T>(output)};
    check_contents(gradients.compute(), w);
  });
  return output;
}

Tensor spmm_transposed(const Tensor& grad_output, const Tensor& crow_indices,
                       const Tensor& col_indices, const Tensor& values, int64_t in_features,
                       const std::optional<Tensor>& ccol_indices,
                       const std::optional<Tensor>& row_indices,
                       const std::optional<Tensor>& permutation) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const Matrix w = checked_matrix("spmm_transposed", crow_indices, col_indices, in_features, values,
                                  sum_type(dy, "grad_output"));
  check_size(dy.size(1), w.rows, "grad_output", "out_features");
  std::optional<Order> order;
  if (dy.size(0) > scatter_batch) order = checked_order(w, ccol_indices, row_indices, permutation);

  Tensor output = recycled({dy.size(0), in_features}, dy.scalar_type());
  for_product_types(dy, w, [&](auto stored, auto sum, auto index) {
    using X = decltype(stored);
    using T = decltype(sum);
    using I = decltype(index);
    const Activations<const X> from = activations<X>(dy);
    const Activations<X> to = mutable_activations<X>(output);
    const bool in_range =
        input_gradient(from, w.view<T, I>(), order ? order->view<I>() : no_order<I>, to);
    check_contents(in_range, w, order);
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
      const DenormalsAreZero quick;
      return run<ColumnSum<X, T>>(isa, activations<X>(dy),
                                  Range{b * piece, std::min(e * piece, columns)},
                                  mutable_data<T>(output));
    });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> spmm_backward(const Tensor& grad_output, const Tensor& input,
                                                 const Tensor& crow_indices,
                                                 const Tensor& col_indices, const Tensor& values,
                                                 bool for_input, bool for_bias,
                                                 const std::optional<Tensor>& ccol_indices,
                                                 const std::optional<Tensor>& row_indices,
                                                 const std::optional<Tensor>& permutation) {
  const Tensor dy = prepared(grad_output, "grad_output", 2);
  const ScalarType sums = sum_type(dy, "grad_output");
  const Tensor x = prepared(input, "input", 2, dy.scalar_type());
  const Matrix w =
      checked_matrix("spmm_backward", crow_indices, col_indices, x.size(1), values, sums);
  check_grad_output(dy, x, w);
  std::optional<Order> order;
  if (for_input && x.size(0) > scatter_batch)
    order = checked_order(w, ccol_indices, row_indices, permutation);

  Tensor dw = recycled({w.nnz}, sums);
  Tensor dx = recycled({for_input ? x.size(0) : 0, w.columns}, dy.scalar_type());
  Tensor db = recycled({for_bias ? w.rows : 0}, sums);
  for_product_types(dy, w, [&](auto stored, auto sum, auto index) {
    using X = decltype(stored);
    using T = decltype(sum);
    using I = decltype(index);
    Gradients<X, T, I> gradients{activations<X>(dy), activations<X>(x), w.view<T, I>(),
                                 order ? order->view<I>() : no_order<I>, mutable_data<T>(dw)};
    if (for_bias) gradients.db = mutable_data<T>(db);
    if (for_input) gradients.dx = mutable_activations<X>(dx);
    check_contents(gradients.compute(), w, order);
  });
  return {dx, dw, db};
}

int64_t largest_scattered_batch() { return scatter_batch; }

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
  m.def("scatter_batch() -> int");
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

// A layer asks for this number, so that it derives the order by columns only for larger batches.
STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CompositeExplicitAutograd, m) {
  m.impl("scatter_batch", TORCH_BOX(&largest_scattered_batch));
}

}  // namespace tts
