// From sorted coordinates to row pointers, with every check that a topology needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "simd.h"

namespace tts {

enum class Defect { none, row_range, column_range, order, duplicate };

struct Verdict {
  Defect defect;
  int64_t position;  // of the first offending nonzero
};

// Checks that entries [begin, end) of (row[k], col[k]) are in range, sorted by (row, column) and
// unique. Entry `begin` is compared with its predecessor, too.
// Reads row and col only within [max(begin - 1, 0), end). Cost: O(end - begin).
template <class I>
Verdict check_order(const I* row, const I* col, int64_t begin, int64_t end, int64_t rows,
                    int64_t columns) {
  for (int64_t k = begin; k < end; ++k) {
    if (row[k] < 0 || row[k] >= rows) return {Defect::row_range, k};
    if (col[k] < 0 || col[k] >= columns) return {Defect::column_range, k};
    if (k == 0) continue;
    if (row[k] < row[k - 1] || (row[k] == row[k - 1] && col[k] < col[k - 1]))
      return {Defect::order, k};
    if (row[k] == row[k - 1] && col[k] == col[k - 1]) return {Defect::duplicate, k};
  }
  return {Defect::none, end};
}

// Returns whether check_order would find no defect. This loop makes the same checks in a form that
// the compiler vectorises. Cost: O(end - begin).
template <class I>
struct IsOrdered {
  template <int Bytes>
  static TTS_INLINE bool apply(const I* row, const I* col, int64_t begin, int64_t end, int64_t rows,
                               int64_t columns) {
    if (begin >= end) return true;
    if (begin == 0) {
      if (check_order(row, col, 0, 1, rows, columns).defect != Defect::none) return false;
      begin = 1;
    }
    using U = std::make_unsigned_t<I>;
    constexpr auto most = static_cast<uint64_t>(std::numeric_limits<I>::max()) + 1;
    const auto row_limit = static_cast<U>(std::min(static_cast<uint64_t>(rows), most));
    const auto column_limit = static_cast<U>(std::min(static_cast<uint64_t>(columns), most));
    U wrong = 0;
    for (int64_t k = begin; k < end; ++k) {
      const U outside =
          (static_cast<U>(row[k]) >= row_limit) | (static_cast<U>(col[k]) >= column_limit);
      const U later = (row[k] > row[k - 1]) | ((row[k] == row[k - 1]) & (col[k] > col[k - 1]));
      wrong |= outside | (later ^ U(1));
    }
    return wrong == 0;
  }
};

// crow[r] = number of entries in rows before r, for every r after the row of entry begin - 1, up to
// the row of entry end - 1. The call with end == nnz also writes all later pointers.
//   row (nnz) sorted, in [0, rows); crow (rows + 1). Calls for disjoint parts may run in parallel.
// Cost: O(end - begin + the pointers written).
template <class I>
void compress(const I* row, int64_t begin, int64_t end, int64_t nnz, int64_t rows, int64_t* crow) {
  int64_t r = begin == 0 ? 0 : static_cast<int64_t>(row[begin - 1]) + 1;
  for (int64_t k = begin; k < end; ++k)
    while (r <= row[k]) crow[r++] = k;
  if (end == nnz)
    while (r <= rows) crow[r++] = nnz;
}

}  // namespace tts
