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
    refuse("`count` must be between 0 and `population` = " + std::to_string(population) + ", got " +
           std::to_string(count));
  Tensor positions = fresh({count}, ScalarType::Long);
  if (count * 8 >= static_cast<int64_t>(huge_from))
    advise_huge_pages(positions.mutable_data_ptr(), static_cast<size_t>(count) * 8);
  const auto key = static_cast<uint64_t>(seed);
  int64_t* out = mutable_data<int64_t>(positions);
  // One thread halves the top of the tree; then all threads halve the parts below it, and draw the
  // leaves. Scratch is allocated before, because nothing may throw inside a parallel region.
  const int depth = sample_depth(population, count), top = std::min(depth, 6);
  std::vector<SampleNode> nodes(size_t{1} << depth);
  const auto leaves = static_cast<int64_t>(nodes.size()), part = leaves >> top;
  const int64_t workers = count * 16 < serial_visits ? 1 : available_threads();
  nodes[0] = {0, population, count, 0, 1};
  halve(key, nodes.data(), 0, top, depth);
  parallel_items(leaves / part, workers, [&](int64_t item, int64_t) {
    halve(key, nodes.data() + item * part, top, depth, depth);
    return true;
  });
  int64_t largest = 1;
  for (const SampleNode& leaf : nodes)
    largest = std::max(largest, std::min(leaf.count, leaf.size - leaf.count));
  std::vector<LeafSampler> samplers(static_cast<size_t>(std::min(workers, leaves)),
                                    LeafSampler(key, largest));
  parallel_items(leaves / part, workers, [&](int64_t item, int64_t worker) {
    for (int64_t leaf = item * part; leaf < (item + 1) * part; ++leaf)
      samplers[static_cast<size_t>(worker)].draw(nodes[static_cast<size_t>(leaf)], out);
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
