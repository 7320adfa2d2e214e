// The order of the nonzeros by column: a stable counting sort.
#pragma once

#include <cstdint>

#include "bounds.h"

namespace tts {

// From compressed rows to compressed columns.
//   crow (rows + 1), col (nnz) in [0, columns)
//   ccol (columns + 1) column pointers; row_of (nnz) rows sorted by (column, row);
//   permutation (nnz): entry k of the transposed order is entry permutation[k] of the original
// Nothing aliases. Returns false if an index was out of range (the outputs are then
// meaningless, but written within their extents). Cost: O(nnz + rows + columns), one thread.
template <class I>
bool transpose(const int64_t* crow, const I* col, int64_t rows, int64_t columns, int64_t nnz,
               int64_t* ccol, I* row_of, I* permutation) {
  bool in_range = true;
  for (int64_t c = 0; c <= columns; ++c) ccol[c] = 0;
  for (int64_t k = 0; k < nnz; ++k) ++ccol[clamp_index(col[k], columns, in_range) + 1];
  for (int64_t c = 0; c < columns; ++c) ccol[c + 1] += ccol[c];
  int64_t expected = 0;  // rows must cover the entries once, or a column would overflow
  for (int64_t r = 0; r < rows; ++r) {
    const RowRange range = row_range(crow, r, nnz, in_range);
    in_range &= range.begin == expected;
    if (!in_range) return false;
    expected = range.end;
    for (int64_t k = range.begin; k < range.end; ++k) {
      const int64_t at = ccol[col[k]]++;
      row_of[at] = static_cast<I>(r);
      permutation[at] = static_cast<I>(k);
    }
  }
  for (int64_t c = columns; c > 0; --c) ccol[c] = ccol[c - 1];
  ccol[0] = 0;
  return in_range && expected == nnz;
}

}  // namespace tts
