// Operator `merge`: the next topology, and where each of its connections comes from.
#include "../kernels/merge.h"

#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>

#include "checks.h"
#include "pieces.h"

namespace tts {
namespace {

void check_regrown(const int64_t* regrown, int64_t count, uint64_t population) {
  const bool increasing =
      for_each_piece(count, available_threads(), [&](int64_t begin, int64_t end, int64_t, int64_t) {
        bool all = true;
        for (int64_t k = std::max<int64_t>(begin, 1); k < end; ++k)
          all &= regrown[k - 1] < regrown[k];
        return all;
      });
  if (!increasing) refuse("regrown positions must be increasing and distinct");
  if (count > 0 && (regrown[0] < 0 || static_cast<uint64_t>(regrown[count - 1]) >= population))
    refuse("regrown positions must lie in [0, out_features * in_features)");
}

[[noreturn]] void refuse_merge(MergeDefect defect) {
  if (defect == MergeDefect::duplicate)
    refuse("regrown positions must not be among those that survive");
  if (defect == MergeDefect::range)
    refuse("`indices` must lie in [0, out_features) and [0, in_features)");
  refuse("`indices` must be sorted by output unit, then input unit, and unique");
}

// Each piece is a range of the present connections, with the regrown positions that lie in it.
template <class I, class J>
void merge_all(const CooView<I>& w, const uint8_t* dropped,
               const std::vector<int64_t>& dropped_before, const int64_t* regrown, int64_t count,
               int64_t total, const Merged<J>& out) {
  const auto pieces = static_cast<size_t>(std::max<int64_t>(pieces_of(w.nnz), 1));
  std::vector<uint64_t> bound(pieces + 1);  // piece i has positions [bound[i], bound[i + 1])
  std::vector<int64_t> first(pieces + 1);   // and regrown positions [first[i], first[i + 1])
  bound[pieces] = static_cast<uint64_t>(w.rows) * static_cast<uint64_t>(w.columns);
  first[pieces] = count;
  for (size_t piece = 1; piece < pieces; ++piece) {
    const auto at = static_cast<int64_t>(piece) * piece_length;
    bound[piece] = position_of(w.row[at], w.col[at], w.columns);
    first[piece] = std::lower_bound(regrown, regrown + count, bound[piece],
                                    [](int64_t position, uint64_t limit) {
                                      return static_cast<uint64_t>(position) < limit;
                                    }) -
                   regrown;
  }
  if (!std::is_sorted(first.begin(), first.end())) refuse_merge(MergeDefect::order);
  std::vector<MergeDefect> defects(pieces, MergeDefect::none);
  parallel_items(static_cast<int64_t>(pieces), available_threads(), [&](int64_t item, int64_t) {
    const auto piece = static_cast<size_t>(item);
    const int64_t begin = item * piece_length, end = std::min(begin + piece_length, w.nnz);
    const int64_t to = begin - dropped_before[piece] + first[piece];
    const int64_t after =
        piece + 1 == pieces ? total : end - dropped_before[piece + 1] + first[piece + 1];
    const MergePiece part{{begin, end}, {first[piece], first[piece + 1]},
                          bound[piece], bound[piece + 1],
                          to,           after - to};
    defects[piece] = merge_piece(w, dropped, regrown, part, out);
    return true;
  });
  for (const MergeDefect defect : defects)
    if (defect != MergeDefect::none) refuse_merge(defect);
}

std::tuple<Tensor, Tensor> merge(const Tensor& indices, const Tensor& dropped,
                                 const Tensor& regrown, int64_t survivors, int64_t out_features,
                                 int64_t in_features, bool narrow) {
  const Tensor present = prepared_indices(indices);
  const Tensor gone = prepared(dropped, "dropped", 1, ScalarType::Bool);
  const Tensor added = prepared(regrown, "regrown", 1, ScalarType::Long);
  const int64_t nnz = present.size(1), count = added.numel();
  check_size(gone.numel(), nnz, "dropped", "connections of `indices`");
  const uint64_t population = population_of(out_features, in_features);
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  check_regrown(data<int64_t>(added), count, population);
  if (population == 0 && nnz > 0) refuse_merge(MergeDefect::range);

  const std::vector<int64_t> before = set_before(data<uint8_t>(gone), nnz);
  check_count(survivors, nnz - before.back(), "survivors", "connections that are not dropped");
  const int64_t total = survivors + count;
  if (narrow && std::max({out_features, in_features, nnz, total}) > most)
    refuse("`narrow` must be False for a topology whose sizes do not fit 32 bits");
  const ScalarType narrowest = narrow ? ScalarType::Int : ScalarType::Long;
  Tensor next = fresh({2, total}, narrowest);
  Tensor source = fresh({total}, narrowest);
  for_index_type(present, "indices", [&](auto index) {
    using I = decltype(index);
    for_index_type(next, "indices", [&](auto narrowed) {
      using J = decltype(narrowed);
      auto* rows = mutable_data<J>(next);
      merge_all(coordinates<I>(present, out_features, in_features), data<uint8_t>(gone), before,
                data<int64_t>(added), count, total,
                Merged<J>{rows, rows + total, mutable_data<J>(source)});
    });
  });
  return {next, source};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "merge(Tensor indices, Tensor dropped, Tensor regrown, SymInt survivors, "
      "SymInt out_features, SymInt in_features, bool narrow) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) { m.impl("merge", TORCH_BOX(&merge)); }

}  // namespace tts
