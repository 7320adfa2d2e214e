// Operator `spmm`: the forward product.
#include <torch/csrc/stable/library.h>

#include <optional>

#include "matrix.h"
#include "products.h"

namespace tts {
namespace {

Tensor spmm(const Tensor& input, const Tensor& crow_indices, const Tensor& col_indices,
            const Tensor& values, const std::optional<Tensor>& bias) {
  const Tensor x = prepared(input, "input", 2);
  const ScalarType sums = sum_type(x, "input");
  const Matrix w = checked_matrix("spmm", crow_indices, col_indices, x.size(1), values, sums);
  std::optional<Tensor> b;
  if (bias.has_value()) {
    b = prepared(*bias, "bias", 1, sums);
    check_size(b->numel(), w.rows, "bias", "out_features");
  }

  Tensor output = recycled({x.size(0), w.rows}, x.scalar_type());
  for_product_types(x, w, [&](auto stored, auto sum, auto index) {
    using X = decltype(stored);
    using T = decltype(sum);
    check_contents(multiply(activations<X>(x), w.view<T, decltype(index)>(),
                            b ? data<T>(*b) : nullptr, mutable_activations<X>(output)),
                   w);
  });
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "spmm(Tensor input, Tensor crow_indices, Tensor col_indices, Tensor values, "
      "Tensor? bias=None) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) { m.impl("spmm", TORCH_BOX(&spmm)); }

}  // namespace tts
