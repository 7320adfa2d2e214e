// Operator `spmm`: the forward product.
#include <torch/csrc/stable/library.h>

#include <optional>

#include "checks.h"
#include "products.h"

namespace tts {
namespace {

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

  Tensor output = recycled({batch, rows}, x.scalar_type());
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

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "spmm(Tensor input, Tensor crow_indices, Tensor col_indices, Tensor values, "
      "Tensor? bias=None) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("spmm", TORCH_BOX(&spmm));
}

}  // namespace tts
