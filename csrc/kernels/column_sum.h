// Sum over samples: the gradient of the bias.
#pragma once

#include <cstdint>

#include "half.h"
#include "simd.h"
#include "views.h"

namespace tts {

// out[c] = sum over s of dy[s, c] for every c in `columns`, in the order of s.
//   out (dy.features); does not alias dy
// Cost: O(samples * columns).
template <class X, class T>
struct ColumnSum {
  template <int Bytes>
  static TTS_INLINE bool apply(Activations<const X> dy, Range columns, T* out) {
    constexpr int W = Bytes / static_cast<int>(sizeof(T)), ahead = 4;  // registers side by side
    using V = Vector<T, W>;
    int64_t c = columns.begin;
    for (; c + ahead * W <= columns.end; c += ahead * W) {
      V sums[ahead] = {};
      for (int64_t s = 0; s < dy.samples; ++s)
        for (int v = 0; v < ahead; ++v)
          sums[v] += load_widened<T, W>(dy.data + s * dy.features + c + v * W);
      for (int v = 0; v < ahead; ++v) store(out + c + v * W, sums[v]);
    }
    for (; c < columns.end; ++c) {
      T sum = 0;
      for (int64_t s = 0; s < dy.samples; ++s) sum += widen(dy.data[s * dy.features + c]);
      out[c] = sum;
    }
    return true;
  }
};

}  // namespace tts
