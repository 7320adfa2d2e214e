// A window of consecutive nonzeros, checked and with the row of each written out, so that loops
// need not look for the ends of rows.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"
#include "views.h"

namespace tts {

// Up to `most` nonzeros, and 16 more entries that repeat the last nonzero, so that vectors of W <=
// 16 may run past the end.
template <class I, int W>
struct NonzeroWindow {
  static constexpr int most = 512;  // columns and rows of a window stay in L1

  alignas(64) I columns[most + 16];
  alignas(64) int64_t rows[most + 16];

  // Reads nonzeros [from, from + count), 1 <= count <= most, of rows [row, last): their columns,
  // clamped, and their rows. At the first call `row` is the first of these rows; the call sets it
  // to the row where the next call begins. The caller has checked the row pointers (nonzeros_of).
  template <class T>
  TTS_INLINE void read(const CsrView<T, I>& w, int64_t from, int64_t count, int64_t& row,
                       int64_t last, bool& in_range) {
    clamp_indices(w.col + from, count, w.columns, columns, in_range);
    for (int64_t i = 0; i < count;) {
      while (row + 1 < last && w.crow[row + 1] <= from + i) ++row;
      const int64_t end =
          row + 1 < last && w.crow[row + 1] < from + count ? w.crow[row + 1] - from : count;
      for (; i < end; ++i) rows[i] = row;
    }
    for (int64_t i = count; i < count + 16; ++i) {
      columns[i] = columns[count - 1];
      rows[i] = rows[count - 1];
    }
  }
};

}  // namespace tts
