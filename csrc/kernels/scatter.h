// The input gradient on the rows as they are, without the transposed order: a scatter.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"
#include "spmm.h"
#include "tile.h"

namespace tts {

// sums[col[k], s] += values[k] * dy[s, r] for every k in the rows r in [row_begin, row_end) and
// one tile of L samples.
//   crow  (rows + 1) row pointers; col (nnz), to lie in [0, columns); values (nnz)
//   dy    (samples, rows) row-major, 1 <= samples <= L
//   sums  (columns, L), zeroed by the caller; nothing aliases it
// Returns false if an index was out of range (sums is then meaningless).
// Each sum is made in the order of the rows.
// Cost: O(nnz of the rows * L): a load and a store for each multiply-add, against the load alone
// of SpmmRows, but no pass over `values` in another order.
template <class T, class I, class X, int L>
struct ScatterRows {
  template <int Bytes>
  static TTS_INLINE bool apply(int64_t row_begin, int64_t row_end, const int64_t* crow,
                               const I* col, const T* values, int64_t nnz, int64_t columns,
                               const X* dy, int64_t samples, int64_t rows, T* sums) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int width = Lanes<T, L, Bytes>::width, count = Lanes<T, L, Bytes>::count;
    alignas(64) T gradients[row_group * L];
    alignas(64) I checked[column_window];  // columns [from, to), clamped
    int64_t from = 0, to = 0;
    bool in_range = true;
    const auto add = [&](int64_t k, const V* gradient) __attribute__((always_inline)) {
      T* sum = sums + static_cast<int64_t>(checked[k - from]) * L;
      for (int v = 0; v < count; ++v)
        store(sum + v * width, V(load<V>(sum + v * width) + values[k] * gradient[v]));
    };
    for (int64_t r = row_begin; r < row_end; ++r) {
      const int64_t g = (r - row_begin) % row_group;
      if (g == 0)
        fill_tile<T, L, Bytes>(dy, samples, rows, r,
                               r + row_group < row_end ? r + row_group : row_end, gradients);
      V gradient[count];
      for (int v = 0; v < count; ++v) gradient[v] = load<V>(gradients + g * L + v * width);
      const RowRange range = row_range(crow, r, nnz, in_range);
      for (int64_t k = range.begin; k < range.end;) {
        if (k < from || k >= to) {
          from = k / column_window * column_window;
          to = nnz - from < column_window ? nnz : from + column_window;
          clamp_indices(col + from, to - from, columns, checked, in_range);
          prefetch_stream(col + to + stream_ahead, column_window);
          prefetch_stream(values + to + stream_ahead, column_window);
        }
        const int64_t stop = range.end < to ? range.end : to;
        // Four to a turn: a quarter faster at 2 samples (measured, 3312 x 3000).
        for (; k + 4 <= stop; k += 4)
          for (int c = 0; c < 4; ++c) add(k + c, gradient);
        for (; k < stop; ++k) add(k, gradient);
      }
    }
    return in_range;
  }
};

// dx[s, c] = sum over p of sums[p * part + c * Stride + s] for c in [begin, end), in the order of
// p: adds up what `parts` scatters left, and writes it row-major.
//   sums (parts, part), part >= columns * Stride;  dx (samples, columns) row-major, no alias
// Cost: O((end - begin) parts L).
template <class T, class X, int L, int Stride = L>
struct CollectColumns {
  template <int Bytes>
  static TTS_INLINE bool apply(int64_t begin, int64_t end, int64_t parts, int64_t part,
                               const T* sums, X* dx, int64_t samples, int64_t columns) {
    alignas(64) T group[row_group * L];
    for (int64_t c = begin; c < end; c += row_group) {
      const int64_t grouped = end - c < row_group ? end - c : row_group;
      for (int64_t g = 0; g < grouped; ++g)
        for (int s = 0; s < L; ++s) {
          const T* from = sums + (c + g) * Stride + s;
          T sum = from[0];
          for (int64_t p = 1; p < parts; ++p) sum += from[p * part];
          group[g * L + s] = sum;
        }
      write_rows<T, L, Bytes>(group, grouped, samples, dx + c, columns);
    }
    return true;
  }
};

}  // namespace tts
