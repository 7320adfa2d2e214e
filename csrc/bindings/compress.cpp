// Operators `compress` and `compress_again`: check a topology and derive its row pointers.
#include "../kernels/compress.h"

#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "isa.h"
#include "parallel.h"

namespace tts {
namespace {

template <class I>
std::string describe(const Verdict& verdict, const CooView<I>& w) {
  const int64_t k = verdict.position;
  const I *row = w.row, *col = w.col;
  const std::string at = "`indices[:, " + std::to_string(k) + "]` is (" + std::to_string(row[k]) +
                         ", " + std::to_string(col[k]) + ")";
  switch (verdict.defect) {
    case Defect::row_range:
      return at + ", whose output unit is outside [0, out_features) = [0, " +
             std::to_string(w.rows) + ")";
    case Defect::column_range:
      return at + ", whose input unit is outside [0, in_features) = [0, " +
             std::to_string(w.columns) + ")";
    case Defect::order:
      return "`indices` must be sorted by output unit, then input unit, but " + at + " after (" +
             std::to_string(row[k - 1]) + ", " + std::to_string(col[k - 1]) +
             "); sort them together with their values";
    default:
      return "`indices` must be unique, but " + at + " twice; add up or drop the duplicates";
  }
}

// Checks a topology and derives its row pointers, unless they are those in `known`.
Tensor compress_unless_known(const Tensor& indices, const Tensor* known, int64_t out_features,
                             int64_t in_features) {
  const Tensor contiguous = prepared_indices(indices);
  check_extent(out_features, "out_features");
  check_extent(in_features, "in_features");
  const int64_t nnz = contiguous.size(1);
  Tensor crow = fresh({out_features + 1}, ScalarType::Long);
  for_index_type(contiguous, "indices", [&](auto index) {
    using I = decltype(index);
    const CooView<I> w = coordinates<I>(contiguous, out_features, in_features);
    if (known && begins_rows(w, data<int64_t>(*known))) {
      std::copy_n(data<int64_t>(*known), out_features + 1, mutable_data<int64_t>(crow));
      return;
    }
    const Isa isa = active_isa();
    const bool valid = parallel_pieces(nnz, nnz, [&](int64_t begin, int64_t end) {
      return run<IsOrdered<I>>(isa, w, Range{begin, end});
    });
    if (!valid) refuse(describe(check_order(w, {0, nnz}), w));
    auto* out = mutable_data<int64_t>(crow);
    if (nnz == 0) compress(w, {0, 0}, out);
    parallel_pieces(nnz, nnz, [&](int64_t begin, int64_t end) {
      compress(w, {begin, end}, out);
      return true;
    });
  });
  return crow;
}

Tensor compress_indices(const Tensor& indices, int64_t out_features, int64_t in_features) {
  return compress_unless_known(indices, nullptr, out_features, in_features);
}

Tensor compress_again(const Tensor& indices, const Tensor& row_pointers, int64_t out_features,
                      int64_t in_features) {
  check_extent(out_features, "out_features");
  const Tensor known = prepared(row_pointers, "row_pointers", 1, ScalarType::Long);
  check_size(known.numel(), out_features + 1, "row_pointers", "out_features + 1");
  return compress_unless_known(indices, &known, out_features, in_features);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def("compress(Tensor indices, SymInt out_features, SymInt in_features) -> Tensor");
  m.def(
      "compress_again(Tensor indices, Tensor row_pointers, SymInt out_features, "
      "SymInt in_features) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("compress", TORCH_BOX(&compress_indices));
  m.impl("compress_again", TORCH_BOX(&compress_again));
}

}  // namespace tts
