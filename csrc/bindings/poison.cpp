// Operator `poison_results`: fills results before kernels write them, so that tests see an entry
// that a kernel leaves unwritten.
#include <torch/csrc/stable/library.h>

#include "outputs.h"

namespace tts {
namespace {

void poison_results(bool enabled) { results_poisoned.store(enabled, std::memory_order_relaxed); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def("poison_results(bool enabled) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CompositeExplicitAutograd, m) {
  m.impl("poison_results", TORCH_BOX(&poison_results));
}

}  // namespace tts
