// Sparse times dense: the forward product, and the input gradient in the order by columns.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"
#include "tile.h"
#include "views.h"

namespace tts {

// Number of rows whose sums are written together, transposed.
constexpr int row_group = 16;

// Number of columns that are checked together, ahead of their use. Windows begin at multiples of
// their size. A window may cut a row, which changes the order of the row's sum; where it cuts must
// therefore not depend on the rows that a call is given.
constexpr int column_window = 512;

// A row is summed in segments of this many nonzeros, which are added up afterwards: the rounding
// error of n terms grows as row_segment + n / row_segment does, not as n. Segments begin at
// multiples of their size, as windows do.
constexpr int row_segment = 2048;

// y[s, r] = bias[r] + sum over k in row r of w.values[k] * x[s, w.col[k]]
// for every r in `rows` and one tile of L samples.
//   bias (w.rows) or null
//   tile (w.columns, L): x with its samples side by side (tile.h)
//   y    (samples <= L, w.rows); every entry of the given rows is written
// Nothing aliases y. Returns false if an index was out of range (y is then meaningless).
// The sum of a row is computed by one call, in an order that depends on the row's place in crow and
// on L alone.
// Cost: O(nnz of the rows * L).
template <class T, class I, class Y, int L>
struct SpmmRows {
  template <int Bytes>
  static TTS_INLINE bool apply(Range rows, CsrView<T, I> w, const T* bias, const T* tile,
                               Activations<Y> y) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int width = Lanes<T, L, Bytes>::width, count = Lanes<T, L, Bytes>::count;
    // Independent sums hide the latency of a multiply-add; 8 vectors in flight fill its pipeline.
    constexpr int chains = count >= 8 ? 1 : count >= 4 ? 2 : 4;
    alignas(64) T group[row_group * L];
    alignas(64) I checked[column_window];  // columns [from, to), clamped
    int64_t from = 0, to = 0;
    bool in_range = true;
    for (int64_t first = rows.begin; first < rows.end; first += row_group) {
      const int64_t grouped = rows.end - first < row_group ? rows.end - first : row_group;
      for (int64_t g = 0; g < grouped; ++g) {
        const Range range = nonzeros_of(w, first + g, in_range);
        int64_t begin = range.begin;
        do {
          const int64_t next = (begin / row_segment + 1) * row_segment;
          const int64_t end = range.end < next ? range.end : next;
          V sums[chains][count] = {};
          for (int64_t k = begin; k < end;) {
            if (k < from || k >= to) {
              from = k / column_window * column_window;
              to = w.nnz - from < column_window ? w.nnz : from + column_window;
              clamp_indices(w.col + from, to - from, w.columns, checked, in_range);
              prefetch_stream(w.col + to + stream_ahead, column_window);
              prefetch_stream(w.values + to + stream_ahead, column_window);
            }
            const int64_t stop = end < to ? end : to;
            const I* column = checked - from;
            for (; k + chains <= stop; k += chains) {
              for (int c = 0; c < chains; ++c) {
                const T* x = tile + static_cast<int64_t>(column[k + c]) * L;
                for (int v = 0; v < count; ++v)
                  sums[c][v] += w.values[k + c] * load<V>(x + v * width);
              }
            }
            for (; k < stop; ++k) {
              const T* x = tile + static_cast<int64_t>(column[k]) * L;
              for (int v = 0; v < count; ++v) sums[0][v] += w.values[k] * load<V>(x + v * width);
            }
          }
          const T offset = bias ? bias[first + g] : T(0);
          for (int v = 0; v < count; ++v) {
            V sum = sums[0][v];
            if constexpr (chains == 2) sum += sums[1][v];
            if constexpr (chains == 4) sum = (sum + sums[1][v]) + (sums[2][v] + sums[3][v]);
            T* total = group + g * L + v * width;
            store(total, begin == range.begin ? V(sum + offset) : V(sum + load<V>(total)));
          }
          begin = end;
        } while (begin < range.end);
      }
      write_rows<T, L, Bytes>(group, grouped, y, first);
    }
    return in_range;
  }
};

}  // namespace tts
