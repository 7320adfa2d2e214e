// Sampled dense-dense product: the gradient of the nonzero weights, and of nothing else.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"
#include "tile.h"

namespace tts {

// out[k] (+)= sum over s of dy[s, r] * x[s, col[k]], for every k in the rows r in
// [row_begin, row_end) and one tile of L samples; `accumulate` adds to out, otherwise out is set.
//   crow  (rows + 1) row pointers; col (nnz), to lie in [0, columns)
//   dy    (samples, rows) row-major, 1 <= samples <= L
//   tile  (columns, L): x with its samples side by side (tile.h)
//   out   (nnz); nothing aliases it
// Returns false if an index was out of range (out is then meaningless).
//
// The products of W nonzeros, a vector each, are summed over their lanes in one tree of W - 1
// additions. Full groups of W within a row go through registers; the ends of rows wait on the
// stack until they make a group together. Each entry is summed in the same order either way.
// Cost: O(nnz of the rows * L).
template <class T, class I, class X, int L>
struct SddmmRows {
  template <int Bytes>
  static TTS_INLINE bool apply(int64_t row_begin, int64_t row_end, const int64_t* crow,
                               const I* col, int64_t nnz, int64_t columns, const X* dy,
                               int64_t samples, int64_t rows, const T* tile, bool accumulate,
                               T* out) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int W = Lanes<T, L, Bytes>::width, count = Lanes<T, L, Bytes>::count;
    constexpr int group_rows = 16;
    alignas(64) T gradients[group_rows * L];
    alignas(64) V waiting[W];
    int64_t waits = 0, waits_from = 0;  // waiting[i] belongs to out[waits_from + i]
    bool in_range = true;

    const auto flush = [&]() __attribute__((always_inline)) {
      T sums[W];
      store(sums, sum_lanes<W, 1, 0>([&](auto i) { return waiting[i]; }));
      for (int64_t i = 0; i < waits; ++i)
        out[waits_from + i] = accumulate ? out[waits_from + i] + sums[i] : sums[i];
      waits = 0;
    };

    for (int i = 0; i < W; ++i) waiting[i] = V{};
    for (int64_t r = row_begin; r < row_end; ++r) {
      const int64_t g = (r - row_begin) % group_rows;
      if (g == 0)
        fill_tile<T, L, Bytes>(dy, samples, rows, r,
                               r + group_rows < row_end ? r + group_rows : row_end, gradients);
      V gradient[count];
      for (int v = 0; v < count; ++v) gradient[v] = load<V>(gradients + g * L + v * W);
      const auto product = [&](int64_t k) __attribute__((always_inline)) {
        const T* x = tile + clamp_index(col[k], columns, in_range) * L;
        V sum = gradient[0] * load<V>(x);
        for (int v = 1; v < count; ++v) sum += gradient[v] * load<V>(x + v * W);
        return sum;
      };
      const RowRange range = row_range(crow, r, nnz, in_range);
      int64_t k = range.begin;
      if (waits > 0 && k != waits_from + waits) flush();  // only after an ill-formed row
      while (k < range.end) {
        if (waits == 0 && k + W <= range.end) {
          V sums = sum_lanes<W, 1, 0>([&](auto i) { return product(k + i); });
          if (accumulate) sums += load<V>(out + k);
          store(out + k, sums);
          k += W;
          continue;
        }
        if (waits == 0) waits_from = k;
        waiting[waits++] = product(k++);
        if (waits == W) flush();
      }
    }
    if (waits > 0) flush();
    return in_range;
  }
};

}  // namespace tts
