// Operator `transpose`: the order of the nonzeros by input unit.
#include "../kernels/transpose.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "checks.h"

namespace tts {
namespace {

std::tuple<Tensor, Tensor, Tensor> transpose_order(const Tensor& crow_indices,
                                                   const Tensor& col_indices,
                                                   int64_t in_features) {
  const Tensor crow = prepared(crow_indices, "crow_indices", 1, ScalarType::Long);
  const Tensor col = prepared(col_indices, "col_indices", 1);
  const int64_t rows = rows_of(crow, "crow_indices"), nnz = col.numel();
  if (in_features < 0) refuse("`in_features` must not be negative");
  if (in_features == 0 && nnz > 0) check_in_range(false, "transpose");
  Tensor ccol = fresh({in_features + 1}, ScalarType::Long);
  Tensor row_of = fresh({nnz}, col.scalar_type());
  Tensor permutation = fresh({nnz}, col.scalar_type());
  for_index_type(col, "col_indices", [&](auto index) {
    using I = decltype(index);
    if (nnz > std::numeric_limits<I>::max() || rows > std::numeric_limits<I>::max())
      refuse("`col_indices` must be int64 for a topology of this size");
    check_in_range(transpose(crow.const_data_ptr<int64_t>(), col.const_data_ptr<I>(), rows,
                             in_features, nnz, ccol.mutable_data_ptr<int64_t>(),
                             row_of.mutable_data_ptr<I>(), permutation.mutable_data_ptr<I>()),
                   "transpose");
  });
  return {ccol, row_of, permutation};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "transpose(Tensor crow_indices, Tensor col_indices, SymInt in_features) "
      "-> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("transpose", TORCH_BOX(&transpose_order));
}

}  // namespace tts
