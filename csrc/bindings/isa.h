// The instruction set that the kernels run in.
#pragma once

#include "../kernels/simd.h"

namespace tts {

// The widest set that this CPU has, or the one named by the environment variable
// TORCH_TRULY_SPARSE_ISA (read once). Throws std::invalid_argument for an unknown name, and for a
// set that this CPU lacks.
Isa active_isa();

}  // namespace tts
