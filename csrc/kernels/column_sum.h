// Sum over samples: the gradient of the bias.
#pragma once

#include <cstdint>

#include "simd.h"

namespace tts {

// out[c] = sum over s of dy[s, c] for c in [begin, end), in the order of s.
//   dy (samples, columns) row-major; out (columns), does not alias dy.
// Cost: O(samples (end - begin)).
template <class T>
struct ColumnSum {
  static TTS_INLINE bool apply(const T* dy, int64_t samples, int64_t columns, int64_t begin,
                               int64_t end, T* out) {
    for (int64_t c = begin; c < end; ++c) out[c] = T(0);
    for (int64_t s = 0; s < samples; ++s)
      for (int64_t c = begin; c < end; ++c) out[c] += dy[s * columns + c];
    return true;
  }
};

}  // namespace tts
