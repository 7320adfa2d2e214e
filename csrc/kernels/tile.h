// A tile of samples with its samples side by side.
//
// Activations are row-major (batch, features), so the same feature of neighbouring samples lies
// far apart. The kernels therefore work on tiles of L samples, copied so that the L values of a
// feature are contiguous: one nonzero weight is then one broadcast and one multiply-add on
// contiguous memory.
#pragma once

#include <cstdint>

#include "simd.h"

namespace tts {

// tile[f * L + s] = x[s * features + f] for f in [begin, end), s < samples; the lanes beyond
// `samples` become zero.
//   x     (samples, features) row-major, 1 <= samples <= L
//   tile  (features, L), does not alias x
// Cost: O((end - begin) L).
template <class T, int L>
struct FillTile {
  static TTS_INLINE bool apply(const T* x, int64_t samples, int64_t features, int64_t begin,
                               int64_t end, T* tile) {
    for (int64_t f = begin; f < end; ++f) {
      T lanes[L];
      for (int s = 0; s < L; ++s) lanes[s] = s < samples ? x[s * features + f] : T(0);
      std::memcpy(tile + f * L, lanes, sizeof(lanes));
    }
    return true;
  }
};

}  // namespace tts
