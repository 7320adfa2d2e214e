// Operator `transpose`: the order by columns of the nonzeros.
#include "../kernels/transpose.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "matrix.h"

namespace tts {
namespace {

std::tuple<Tensor, Tensor, Tensor> transpose_order(const Tensor& crow_indices,
                                                   const Tensor& col_indices, int64_t in_features) {
  const Matrix w = checked_matrix("transpose", crow_indices, col_indices, in_features);
  Tensor ccol = fresh({in_features + 1}, ScalarType::Long);
  Tensor row_of = fresh({w.nnz}, w.col.scalar_type());
  Tensor permutation = fresh({w.nnz}, w.col.scalar_type());
  for_index_type(w.col, "col_indices", [&](auto index) {
    using I = decltype(index);
    if (w.nnz > std::numeric_limits<I>::max() || w.rows > std::numeric_limits<I>::max())
      refuse("`col_indices` must be int64 for a topology of this size");
    check_contents(transpose(w.view<void, I>(), mutable_data<int64_t>(ccol),
                             mutable_data<I>(row_of), mutable_data<I>(permutation)),
                   w);
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
