// Numbers below the smallest normal one, which take most processors a hundred times as long.
#pragma once

#include <cstdint>

#include "simd.h"

namespace tts {

// While it lives, this thread takes denormal numbers for zeros, as operands and as results: of
// magnitude below 1.2e-38 in float32, 2.2e-308 in float64. Costs about 20 ns.
class DenormalsAreZero {
 public:
#if TTS_X86
  DenormalsAreZero() : before_(__builtin_ia32_stmxcsr()) {
    constexpr unsigned flush_results = 1u << 15, zero_operands = 1u << 6;
    __builtin_ia32_ldmxcsr(before_ | flush_results | zero_operands);
  }
  ~DenormalsAreZero() { __builtin_ia32_ldmxcsr(before_); }
#elif defined(__aarch64__)
  DenormalsAreZero() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | uint64_t{1} << 24));
  }
  ~DenormalsAreZero() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
#else
  DenormalsAreZero() : before_(0) {}
#endif
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;

 private:
#if defined(__aarch64__)
  uint64_t before_;
#else
  unsigned before_;
#endif
};

}  // namespace tts
