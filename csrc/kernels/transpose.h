// The order by columns of the nonzeros, by a stable counting sort.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "views.h"

namespace tts {

// From compressed rows to compressed columns.
//   ccol (columns + 1) column pointers; row_of (nnz) rows sorted by (column, row);
//   permutation (nnz): nonzero k of the order by columns is nonzero permutation[k] of w
// Nothing aliases. Returns false if an index was out of range (the outputs are then
// meaningless, but written within their extents). Cost: O(nnz + rows + columns), one thread.
template <class I>
bool transpose(const CsrView<void, I>& w, int64_t* ccol, I* row_of, I* permutation) {
  bool in_range = true;
  for (int64_t c = 0; c <= w.columns; ++c) ccol[c] = 0;
  for (int64_t k = 0; k < w.nnz; ++k) ++ccol[clamp_index(w.col[k], w.columns, in_range) + 1];
  for (int64_t c = 0; c < w.columns; ++c) ccol[c + 1] += ccol[c];
  int64_t expected = 0;  // rows must cover the nonzeros exactly once, or a column would overflow
  for (int64_t r = 0; r < w.rows; ++r) {
    const Range range = nonzeros_of(w, r, in_range);
    in_range &= range.begin == expected;
    if (!in_range) return false;
    expected = range.end;
    for (int64_t k = range.begin; k < range.end; ++k) {
      const int64_t at = ccol[w.col[k]]++;
      row_of[at] = static_cast<I>(r);
      permutation[at] = static_cast<I>(k);
    }
  }
  for (int64_t c = w.columns; c > 0; --c) ccol[c] = ccol[c - 1];
  ccol[0] = 0;
  return in_range && expected == w.nnz;
}

}  // namespace tts
