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
// dy is transposed for 16 rows at a time. The nonzeros of these rows are taken W at a time, over
// the ends of rows: W vectors of products, summed over their lanes in one tree of W - 1 additions.
// Each entry is summed in the same order wherever it stands. Cost: O(nnz of the rows * L).
template <class T, class I, class X, int L>
struct SddmmRows {
  static constexpr int group_rows = 16, window = 512;

  template <int Bytes>
  static TTS_INLINE bool apply(int64_t row_begin, int64_t row_end, const int64_t* crow,
                               const I* col, int64_t nnz, int64_t columns, const X* dy,
                               int64_t samples, int64_t rows, const T* tile, bool accumulate,
                               T* out) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int W = Lanes<T, L, Bytes>::width, count = Lanes<T, L, Bytes>::count;
    alignas(64) T gradients[group_rows * L];
    alignas(64) I checked[window + W];           // columns of the nonzeros at hand, clamped
    alignas(64) int32_t gradient_of[window + W];  // where `gradients` holds those of their rows
    bool in_range = true;
    for (int64_t first = row_begin; first < row_end; first += group_rows) {
      const int64_t last = row_end - first < group_rows ? row_end : first + group_rows;
      fill_tile<T, L, Bytes>(dy, samples, rows, first, last, gradients);
      const RowRange all = row_range(crow, first, last, nnz, in_range);
      int64_t row = first;
      for (int64_t from = all.begin; from < all.end; from += window) {
        const int64_t size = all.end - from < window ? all.end - from : window;
        clamp_indices(col + from, size, columns, checked, in_range);
        for (int64_t i = 0; i < size;) {
          while (row + 1 < last && crow[row + 1] <= from + i) ++row;
          const int64_t end = row + 1 < last && crow[row + 1] < from + size ? crow[row + 1] - from
                                                                           : size;
          for (; i < end; ++i) gradient_of[i] = static_cast<int32_t>((row - first) * L);
        }
        for (int64_t i = size; i < size + W; ++i) {  // lanes that are not stored
          checked[i] = 0;
          gradient_of[i] = gradient_of[size - 1];  // so that equal ends mean one row throughout
        }

        for (int64_t i = 0; i < size; i += W) {
          // Both forms start from zero: with a bare product first, the compiler may fuse either
          // multiplication with the addition, and they would round differently.
          const T* row = gradients + gradient_of[i];
          V held[count];
          for (int v = 0; v < count; ++v) held[v] = load<V>(row + v * W);
          const auto in_row = [&](auto j) __attribute__((always_inline)) {
            const T* x = tile + static_cast<int64_t>(checked[i + j]) * L;
            V sum{};
            for (int v = 0; v < count; ++v) sum += held[v] * load<V>(x + v * W);
            return sum;
          };
          const auto in_any_row = [&](auto j) __attribute__((always_inline)) {
            const T* gradient = gradients + gradient_of[i + j];
            const T* x = tile + static_cast<int64_t>(checked[i + j]) * L;
            V sum{};
            for (int v = 0; v < count; ++v)
              sum += load<V>(gradient + v * W) * load<V>(x + v * W);
            return sum;
          };
          V sums = gradient_of[i] == gradient_of[i + W - 1] ? sum_lanes<W, 1, 0>(in_row)
                                                            : sum_lanes<W, 1, 0>(in_any_row);
          T* to = out + from + i;
          if (i + W <= size) {
            if (accumulate) sums += load<V>(to);
            store(to, sums);
          } else {
            T lanes[W];
            store(lanes, sums);
            for (int64_t j = 0; i + j < size; ++j) to[j] = accumulate ? to[j] + lanes[j] : lanes[j];
          }
        }
      }
    }
    return in_range;
  }
};

}  // namespace tts
