// Sampled dense-dense product: the gradient of the nonzero weights, and of nothing else.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"

namespace tts {

// out[k] (+)= sum over s of dy[s, r] * x[s, col[k]], for every k in the rows r in
// [row_begin, row_end) and one tile of L samples; `accumulate` adds to out, otherwise out is set.
//   crow  (rows + 1) row pointers; col (nnz), to lie in [0, columns)
//   dy    (samples, rows) row-major, 1 <= samples <= L
//   tile  (columns, L): x with its samples side by side (tile.h)
//   out   (nnz); nothing aliases it
// Returns false if an index was out of range (out is then meaningless).
// Cost: O(nnz of the rows * L).
template <class T, class I, int L>
struct SddmmRows {
  static TTS_INLINE bool apply(int64_t row_begin, int64_t row_end, const int64_t* crow,
                               const I* col, int64_t nnz, int64_t columns, const T* dy,
                               int64_t samples, int64_t rows, const T* tile, bool accumulate,
                               T* out) {
    using V = Vector<T, L>;
    bool in_range = true;
    for (int64_t r = row_begin; r < row_end; ++r) {
      T lanes[L] = {};
      for (int64_t s = 0; s < samples; ++s) lanes[s] = dy[s * rows + r];
      const V gradient = load<V>(lanes);
      const RowRange range = row_range(crow, r, nnz, in_range);
      for (int64_t k = range.begin; k < range.end; ++k) {
        const V products =
            gradient * load<V>(tile + clamp_index(col[k], columns, in_range) * L);
        const T sum = sum_lanes<T, L>(products);
        out[k] = accumulate ? out[k] + sum : sum;
      }
    }
    return in_range;
  }
};

}  // namespace tts
