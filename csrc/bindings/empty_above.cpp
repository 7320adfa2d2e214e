// Operator `empty_above`: the empty positions of a block whose gradients exceed a threshold.
#include "../kernels/empty_above.h"

#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>

#include "checks.h"
#include "isa.h"

namespace tts {
namespace {

// One thread searches a block: blocks are small, and the caller may search several in parallel.
template <class T>
std::tuple<Tensor, Tensor> find(const Tensor& gradients, int64_t start, const Tensor& occupied,
                                double threshold) {
  const int64_t n = gradients.numel();
  const Scratch<uint64_t> set(words_of(n));
  int64_t total = 0;
  if (!run<MarkEmptyAbove<T>>(active_isa(), data<T>(gradients), n, static_cast<T>(threshold),
                              data<int64_t>(occupied), occupied.numel(), start, set.get(), &total))
    refuse("`occupied` must increase and lie in [start, start + n) = [" + std::to_string(start) +
           ", " + std::to_string(start + n) + ")");
  Tensor positions = fresh({total}, ScalarType::Long);
  Tensor magnitudes = fresh({total}, gradients.scalar_type());
  write_marked(data<T>(gradients), n, set.get(), start, mutable_data<int64_t>(positions),
               mutable_data<T>(magnitudes));
  return {positions, magnitudes};
}

std::tuple<Tensor, Tensor> empty_above(const Tensor& gradients, int64_t start,
                                       const Tensor& occupied, double threshold) {
  const Tensor x = prepared(gradients, "gradients", 1);
  const Tensor taken = prepared(occupied, "occupied", 1, ScalarType::Long);
  if (start < 0 || start > std::numeric_limits<int64_t>::max() - x.numel())
    refuse("`start` must lie in [0, 2**63 - n), got " + std::to_string(start));
  if (x.scalar_type() == ScalarType::Float) return find<float>(x, start, taken, threshold);
  if (x.scalar_type() == ScalarType::Double) return find<double>(x, start, taken, threshold);
  refuse("`gradients` must be float32 or float64, got " + dtype_name(x));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "empty_above(Tensor gradients, SymInt start, Tensor occupied, float threshold) "
      "-> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("empty_above", TORCH_BOX(&empty_above));
}

}  // namespace tts
