// Sparse times dense: the forward product, and the input gradient on the transposed order.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"
#include "tile.h"

namespace tts {

// Rows whose sums are kept until they are written together, transposed.
constexpr int row_group = 16;

// Columns that are checked together, ahead of their use. Windows begin at multiples of their size:
// where they cut a row, and with it the order of its sum, must not depend on the first row asked
// for.
constexpr int column_window = 512;

// y[s, r] = bias[r] + sum over k in row r of values[k] * x[s, col[k]]
// for rows r in [row_begin, row_end) and one tile of L samples.
//   crow   (rows + 1) row pointers into col and values
//   col    (nnz) column of each nonzero, to lie in [0, columns)
//   values (nnz)
//   bias   (rows) or null
//   tile   (columns, L): x with its samples side by side (tile.h)
//   y      (samples, rows) row-major, samples <= L; every entry of the given rows is written
// Nothing aliases y. Returns false if an index was out of range (y is then meaningless).
// A row's sum is made by one call, in an order that depends on the row's place in crow and on L
// alone.
// Cost: O(nnz of the rows * L).
template <class T, class I, class Y, int L>
struct SpmmRows {
  template <int Bytes>
  static TTS_INLINE bool apply(int64_t row_begin, int64_t row_end, const int64_t* crow,
                               const I* col, const T* values, int64_t nnz, int64_t columns,
                               const T* bias, const T* tile, Y* y, int64_t samples,
                               int64_t rows) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int width = Lanes<T, L, Bytes>::width, count = Lanes<T, L, Bytes>::count;
    // Independent sums hide the latency of a multiply-add; 8 fill its pipeline.
    constexpr int chains = count >= 8 ? 1 : count >= 4 ? 2 : 4;
    alignas(64) T group[row_group * L];
    alignas(64) I checked[column_window];  // columns [from, to), clamped
    int64_t from = 0, to = 0;
    bool in_range = true;
    for (int64_t first = row_begin; first < row_end; first += row_group) {
      const int64_t grouped = row_end - first < row_group ? row_end - first : row_group;
      for (int64_t g = 0; g < grouped; ++g) {
        const RowRange range = row_range(crow, first + g, nnz, in_range);
        V sums[chains][count] = {};
        for (int64_t k = range.begin; k < range.end;) {
          if (k < from || k >= to) {
            from = k / column_window * column_window;
            to = nnz - from < column_window ? nnz : from + column_window;
            clamp_indices(col + from, to - from, columns, checked, in_range);
            prefetch_stream(col + to + stream_ahead, column_window);
            prefetch_stream(values + to + stream_ahead, column_window);
          }
          const int64_t stop = range.end < to ? range.end : to;
          const I* next = checked - from;
          for (; k + chains <= stop; k += chains) {
            for (int c = 0; c < chains; ++c) {
              const T* x = tile + static_cast<int64_t>(next[k + c]) * L;
              for (int v = 0; v < count; ++v)
                sums[c][v] += values[k + c] * load<V>(x + v * width);
            }
          }
          for (; k < stop; ++k) {
            const T* x = tile + static_cast<int64_t>(next[k]) * L;
            for (int v = 0; v < count; ++v) sums[0][v] += values[k] * load<V>(x + v * width);
          }
        }
        const T offset = bias ? bias[first + g] : T(0);
        for (int v = 0; v < count; ++v) {
          V sum = sums[0][v];
          if constexpr (chains == 2) sum += sums[1][v];
          if constexpr (chains == 4) sum = (sum + sums[1][v]) + (sums[2][v] + sums[3][v]);
          store(group + g * L + v * width, V(sum + offset));
        }
      }
      write_rows<T, L, Bytes>(group, grouped, samples, y + first, rows);
    }
    return in_range;
  }
};

}  // namespace tts
