// Operators `to_positions`, `from_positions` and `empty_positions`.
#include "../kernels/positions.h"

#include <torch/csrc/stable/library.h>

#include <limits>
#include <optional>

#include "checks.h"
#include "pieces.h"

namespace tts {
namespace {

Tensor to_positions(const Tensor& indices, const std::optional<Tensor>& dropped, int64_t count,
                    int64_t in_features) {
  const Tensor contiguous = prepared_indices(indices);
  const int64_t nnz = contiguous.size(1);
  const Tensor mask = dropped ? prepared(*dropped, "dropped", 1, ScalarType::Bool) : contiguous;
  const uint8_t* masked = dropped ? data<uint8_t>(mask) : nullptr;
  std::vector<int64_t> before(static_cast<size_t>(pieces_of(nnz)) + 1);
  if (dropped) {
    check_size(mask.numel(), nnz, "dropped", "connections of `indices`");
    before = set_before(masked, nnz);
  }
  check_count(count, nnz - before.back(), "count", "connections that are not dropped");
  Tensor positions = fresh({count}, ScalarType::Long);
  for_index_type(contiguous, "indices", [&](auto index) {
    using I = decltype(index);
    const CooView<I> w = coordinates<I>(contiguous, 0, in_features);  // its height plays no part
    auto* out = mutable_data<int64_t>(positions);
    for_each_piece(nnz, available_threads(),
                   [&](int64_t begin, int64_t end, int64_t piece, int64_t) {
                     const int64_t to = begin - before[static_cast<size_t>(piece)];
                     unmasked_positions(w, masked, {begin, end}, count - to, out + to);
                     return true;
                   });
  });
  return positions;
}

Tensor from_positions(const Tensor& positions, int64_t out_features, int64_t in_features,
                      bool narrow) {
  const Tensor linear = prepared(positions, "positions", 1, ScalarType::Long);
  const uint64_t population = population_of(out_features, in_features);
  const int64_t nnz = linear.numel();
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  if (narrow && std::max(out_features, in_features) > most)
    refuse("`narrow` must be False for a matrix whose sizes do not fit 32 bits");
  Tensor indices = fresh({2, nnz}, narrow ? ScalarType::Int : ScalarType::Long);
  for_index_type(indices, "indices", [&](auto index) {
    using I = decltype(index);
    auto* row = mutable_data<I>(indices);
    const auto* from = data<int64_t>(linear);
    const bool valid =
        for_each_piece(nnz, available_threads(), [&](int64_t begin, int64_t end, int64_t, int64_t) {
          return split_positions(from, begin, end, population, in_features, row, row + nnz);
        });
    if (!valid)
      refuse("`positions` must lie in [0, out_features * in_features) = [0, " +
             std::to_string(population) + ")");
  });
  return indices;
}

Tensor empty_ranked(const Tensor& occupied, const Tensor& ranks) {
  const Tensor taken = prepared(occupied, "occupied", 1, ScalarType::Long);
  const Tensor ranked = prepared(ranks, "ranks", 1, ScalarType::Long);
  Tensor positions = fresh({ranked.numel()}, ScalarType::Long);
  auto* out = mutable_data<int64_t>(positions);
  for_each_piece(ranked.numel(), available_threads(),
                 [&](int64_t begin, int64_t end, int64_t, int64_t) {
                   empty_positions(data<int64_t>(taken), taken.numel(), data<int64_t>(ranked),
                                   begin, end, out);
                   return true;
                 });
  return positions;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "to_positions(Tensor indices, Tensor? dropped, SymInt count, SymInt in_features) -> Tensor");
  m.def(
      "from_positions(Tensor positions, SymInt out_features, SymInt in_features, bool narrow) "
      "-> Tensor");
  m.def("empty_positions(Tensor occupied, Tensor ranks) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("to_positions", TORCH_BOX(&to_positions));
  m.impl("from_positions", TORCH_BOX(&from_positions));
  m.impl("empty_positions", TORCH_BOX(&empty_ranked));
}

}  // namespace tts
