// Sparse times dense: the forward product, and the input gradient on the transposed order.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"

namespace tts {

// y[s, r] = bias[r] + sum over k in row r of values[k] * x[s, col[k]]
// for rows r in [row_begin, row_end) and one tile of L samples.
//   crow   (rows + 1) row pointers into col and values
//   col    (nnz) column of each nonzero, to lie in [0, columns)
//   values (nnz)
//   bias   (rows) or null
//   tile   (columns, L): x with its samples side by side (tile.h)
//   y      (samples, rows) row-major, samples <= L; every entry of the given rows is written
// Nothing aliases y. Returns false if an index was out of range (y is then meaningless).
// Each y[s, r] is summed by one call in an order that depends on the row alone.
// Cost: O(nnz of the rows * L).
template <class T, class I, int L>
struct SpmmRows {
  static TTS_INLINE bool apply(int64_t row_begin, int64_t row_end, const int64_t* crow,
                               const I* col, const T* values, int64_t nnz, int64_t columns,
                               const T* bias, const T* tile, T* y, int64_t samples,
                               int64_t rows) {
    using V = Vector<T, L>;
    constexpr int chains = 4;  // independent sums hide the latency of a multiply-add
    bool in_range = true;
    for (int64_t r = row_begin; r < row_end; ++r) {
      const RowRange range = row_range(crow, r, nnz, in_range);
      V sums[chains] = {};
      int64_t k = range.begin;
      for (; k + chains <= range.end; k += chains)
        for (int c = 0; c < chains; ++c)
          sums[c] += values[k + c] *
                     load<V>(tile + clamp_index(col[k + c], columns, in_range) * L);
      for (; k < range.end; ++k)
        sums[0] += values[k] * load<V>(tile + clamp_index(col[k], columns, in_range) * L);
      const V sum = (sums[0] + sums[1]) + (sums[2] + sums[3]) + (bias ? bias[r] : T(0));
      T lanes[L];
      store(lanes, sum);
      for (int64_t s = 0; s < samples; ++s) y[s * rows + r] = lanes[s];
    }
    return in_range;
  }
};

}  // namespace tts
