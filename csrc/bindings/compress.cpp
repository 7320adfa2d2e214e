// Operator `compress`: checks a topology and derives its row pointers.
#include "../kernels/compress.h"

#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "isa.h"
#include "parallel.h"

namespace tts {
namespace {

template <class I>
std::string describe(const Verdict& verdict, const I* row, const I* col, int64_t out_features,
                     int64_t in_features) {
  const int64_t k = verdict.position;
  const std::string at = "`indices[:, " + std::to_string(k) + "]` is (" + std::to_string(row[k]) +
                         ", " + std::to_string(col[k]) + ")";
  switch (verdict.defect) {
    case Defect::row_range:
      return at + ", whose output unit is outside [0, out_features) = [0, " +
             std::to_string(out_features) + ")";
    case Defect::column_range:
      return at + ", whose input unit is outside [0, in_features) = [0, " +
             std::to_string(in_features) + ")";
    case Defect::order:
      return "`indices` must be sorted by output unit, then input unit, but " + at + " after (" +
             std::to_string(row[k - 1]) + ", " + std::to_string(col[k - 1]) +
             "); sort them together with their values";
    default:
      return "`indices` must be unique, but " + at + " twice; add up or drop the duplicates";
  }
}

Tensor compress_indices(const Tensor& indices, int64_t out_features, int64_t in_features) {
  const Tensor contiguous = prepared(indices, "indices", 2);
  check_size(contiguous.size(0), 2, "indices", "output units, input units");
  if (out_features < 0) refuse("`out_features` must not be negative");
  if (in_features < 0) refuse("`in_features` must not be negative");
  const int64_t nnz = contiguous.size(1);
  Tensor crow = fresh({out_features + 1}, ScalarType::Long);
  for_index_type(contiguous, "indices", [&](auto index) {
    using I = decltype(index);
    const I* row = contiguous.const_data_ptr<I>();
    const I* col = row + nnz;
    const Isa isa = active_isa();
    const bool valid = parallel_pieces(nnz, nnz, [&](int64_t begin, int64_t end) {
      return run<IsOrdered<I>>(isa, row, col, begin, end, out_features, in_features);
    });
    if (!valid)
      refuse(describe(check_order(row, col, 0, nnz, out_features, in_features), row, col,
                      out_features, in_features));
    auto* out = mutable_data<int64_t>(crow);
    if (nnz == 0) compress(row, 0, 0, 0, out_features, out);
    parallel_pieces(nnz, nnz, [&](int64_t begin, int64_t end) {
      compress(row, begin, end, nnz, out_features, out);
      return true;
    });
  });
  return crow;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def("compress(Tensor indices, SymInt out_features, SymInt in_features) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("compress", TORCH_BOX(&compress_indices));
}

}  // namespace tts
