#include "isa.h"

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace tts {
namespace {

struct Candidate {
  Isa isa;
  const char* name;
  bool supported;
};

// Widest first; the last one always works.
std::vector<Candidate> candidates() {
  std::vector<Candidate> all;
#if TTS_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  all.push_back({Isa::avx512, "avx512", avx512});
  all.push_back({Isa::avx2, "avx2", avx2});
#elif defined(__aarch64__)
  all.push_back({Isa::neon, "neon", true});
#endif
  all.push_back({Isa::scalar, "scalar", true});
  return all;
}

Candidate choose() {
  const char* wanted = std::getenv("TORCH_TRULY_SPARSE_ISA");
  std::string known;
  for (const Candidate& candidate : candidates()) {
    if (wanted == nullptr || *wanted == '\0') {
      if (candidate.supported) return candidate;
    } else if (std::string(wanted) == candidate.name) {
      if (candidate.supported) return candidate;
      throw std::invalid_argument(std::string("TORCH_TRULY_SPARSE_ISA=") + wanted +
                                  ": this CPU lacks these instructions; unset the variable to "
                                  "use the widest set that it has");
    }
    known += (known.empty() ? "" : ", ") + std::string(candidate.name);
  }
  throw std::invalid_argument(std::string("TORCH_TRULY_SPARSE_ISA=") + wanted +
                              " is not an instruction set known here; expected one of: " + known);
}

const Candidate& active() {
  static const Candidate chosen = choose();
  return chosen;
}

std::string active_isa_name() { return active().name; }

}  // namespace

Isa active_isa() { return active().isa; }

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) { m.def("active_isa() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CompositeExplicitAutograd, m) {
  m.impl("active_isa", TORCH_BOX(&active_isa_name));
}

}  // namespace tts
