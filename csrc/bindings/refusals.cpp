// Operator `last_refusal`: what this library's operators refused last, in the calling thread. Some
// releases of torch (2.15 is one) hand every exception of an operator on as a RuntimeError; by its
// text the Python side tells a refused argument, a ValueError, from an error of torch itself.
#include <torch/csrc/stable/library.h>

#include "checks.h"

namespace tts {
namespace {

std::string text_of_last_refusal() { return last_refusal; }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) { m.def("last_refusal() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CompositeExplicitAutograd, m) {
  m.impl("last_refusal", TORCH_BOX(&text_of_last_refusal));
}

}  // namespace tts
