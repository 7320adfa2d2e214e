// Sum over samples: the gradient of the bias.
#pragma once

#include <cstdint>

#include "half.h"
#include "simd.h"

namespace tts {

// out[c] = sum over s of dy[s, c] for c in [begin, end), in the order of s.
//   dy (samples, columns) row-major; out (columns), does not alias dy.
// Cost: O(samples (end - begin)).
template <class X, class T>
struct ColumnSum {
  template <int Bytes>
  static TTS_INLINE bool apply(const X* dy, int64_t samples, int64_t columns, int64_t begin,
                               int64_t end, T* out) {
    constexpr int W = Bytes / static_cast<int>(sizeof(T)), ahead = 4;  // registers side by side
    using V = Vector<T, W>;
    int64_t c = begin;
    for (; c + ahead * W <= end; c += ahead * W) {
      V sums[ahead] = {};
      for (int64_t s = 0; s < samples; ++s)
        for (int v = 0; v < ahead; ++v)
          sums[v] += load_widened<T, W>(dy + s * columns + c + v * W);
      for (int v = 0; v < ahead; ++v) store(out + c + v * W, sums[v]);
    }
    for (; c < end; ++c) {
      T sum = 0;
      for (int64_t s = 0; s < samples; ++s) sum += widen(dy[s * columns + c]);
      out[c] = sum;
    }
    return true;
  }
};

}  // namespace tts
