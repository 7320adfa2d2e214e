// From sorted coordinates to row pointers, with every check that a topology needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "simd.h"
#include "views.h"

namespace tts {

enum class Defect { none, row_range, column_range, order, duplicate };

struct Verdict {
  Defect defect;
  int64_t position;  // of the first offending nonzero
};

// Checks nonzeros `part` of w: in range, sorted by (row, column), unique. The first one is compared
// with its predecessor, too.
// Reads the coordinates only within [max(part.begin - 1, 0), part.end).
// Cost: O(part.end - part.begin).
template <class I>
Verdict check_order(const CooView<I>& w, Range part) {
  const I *row = w.row, *col = w.col;
  for (int64_t k = part.begin; k < part.end; ++k) {
    if (row[k] < 0 || row[k] >= w.rows) return {Defect::row_range, k};
    if (col[k] < 0 || col[k] >= w.columns) return {Defect::column_range, k};
    if (k == 0) continue;
    if (row[k] < row[k - 1] || (row[k] == row[k - 1] && col[k] < col[k - 1]))
      return {Defect::order, k};
    if (row[k] == row[k - 1] && col[k] == col[k - 1]) return {Defect::duplicate, k};
  }
  return {Defect::none, part.end};
}

// Returns whether check_order would find no defect. This loop makes the same checks in a form that
// the compiler vectorises. Cost: O(end - begin).
template <class I>
struct IsOrdered {
  template <int Bytes>
  static TTS_INLINE bool apply(const CooView<I>& w, Range part) {
    const I *row = w.row, *col = w.col;
    int64_t begin = part.begin;
    const int64_t end = part.end;
    if (begin >= end) return true;
    if (begin == 0) {
      if (check_order(w, {0, 1}).defect != Defect::none) return false;
      begin = 1;
    }
    using U = std::make_unsigned_t<I>;
    constexpr auto most = static_cast<uint64_t>(std::numeric_limits<I>::max()) + 1;
    const auto row_limit = static_cast<U>(std::min(static_cast<uint64_t>(w.rows), most));
    const auto column_limit = static_cast<U>(std::min(static_cast<uint64_t>(w.columns), most));
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

// crow[r] = number of nonzeros in rows before r, for the rows r that nonzeros `part` close: those
// after the row of nonzero part.begin - 1, up to that of nonzero part.end - 1. The last part, which
// ends with nonzero nnz, closes all that are left.
//   w has passed check_order; crow (rows + 1). Parts may run side by side.
// Cost: O(part.end - part.begin + the rows closed).
template <class I>
void compress(const CooView<I>& w, Range part, int64_t* crow) {
  int64_t r = part.begin == 0 ? 0 : static_cast<int64_t>(w.row[part.begin - 1]) + 1;
  for (int64_t k = part.begin; k < part.end; ++k)
    while (r <= w.row[k]) crow[r++] = k;
  if (part.end == w.nnz)
    while (r <= w.rows) crow[r++] = w.nnz;
}

// Whether crow (rows + 1) are the row pointers of a topology that is sorted: every row begins where
// they say. Reads the coordinates only at the ends of rows. Cost: O(rows).
template <class I>
bool begins_rows(const CooView<I>& w, const int64_t* crow) {
  if (crow[0] != 0 || crow[w.rows] != w.nnz) return false;
  for (int64_t r = 0; r < w.rows; ++r) {
    const int64_t begin = crow[r], end = crow[r + 1];
    if (end < begin || end > w.nnz) return false;
    if (begin < end && (w.row[begin] != r || w.row[end - 1] != r)) return false;
  }
  return true;
}

}  // namespace tts
