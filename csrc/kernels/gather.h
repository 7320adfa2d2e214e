// Values in the transposed order.
#pragma once

#include <cstdint>

#include "bounds.h"

namespace tts {

// out[k] = values[permutation[k]] for k in [begin, end).
//   permutation entries are to lie in [0, nnz); out does not alias values.
// Returns false if one did not. Cost: O(end - begin).
template <class T, class I>
bool gather(const T* values, const I* permutation, int64_t nnz, int64_t begin, int64_t end,
            T* out) {
  bool in_range = true;
  for (int64_t k = begin; k < end; ++k)
    out[k] = values[clamp_index(permutation[k], nnz, in_range)];
  return in_range;
}

}  // namespace tts
