// Operator `sample`: distinct positions, uniformly at random, sorted.
#include "../kernels/sample.h"

#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "parallel.h"

namespace tts {
namespace {

Tensor sample(int64_t population, int64_t count, int64_t seed) {
  if (population < 0) refuse("`population` must not be negative");
  if (count < 0 || count > population)
    refuse("`count` must be between 0 and `population` = " + std::to_string(population) +
           ", got " + std::to_string(count));
  Tensor positions = torch::stable::empty({count}, ScalarType::Long);
  const auto key = static_cast<uint64_t>(seed);
  const std::vector<SampleLeaf> leaves = plan_sample(key, population, count);
  int64_t* out = positions.mutable_data_ptr<int64_t>();
  size_t largest = 0;  // scratch is reserved here: nothing may throw inside a parallel region
  for (const SampleLeaf& leaf : leaves)
    largest = std::max(largest, static_cast<size_t>(std::min(leaf.count, leaf.size - leaf.count)));
  const auto shares =
      std::min<int64_t>(static_cast<int64_t>(leaves.size()),
                        static_cast<int64_t>(torch::stable::get_num_threads()));
  std::vector<std::vector<int64_t>> scratch(static_cast<size_t>(shares));
  for (auto& own : scratch) own.reserve(largest);
  const auto leaf_of = [&](int64_t share) {
    return static_cast<int64_t>(leaves.size()) * share / shares;
  };
  parallel_pieces(shares, count * 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = leaf_of(begin); i < leaf_of(end); ++i)
      draw_leaf(key, leaves[static_cast<size_t>(i)], scratch[static_cast<size_t>(begin)], out);
    return true;
  });
  return positions;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def("sample(SymInt population, SymInt count, int seed) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CompositeExplicitAutograd, m) {
  m.impl("sample", TORCH_BOX(&sample));
}

}  // namespace tts
