// From sorted coordinates to row pointers, with every check that a topology needs.
#pragma once

#include <cstdint>

namespace tts {

enum class Defect { none, row_range, column_range, order, duplicate };

struct Verdict {
  Defect defect;
  int64_t position;  // of the first offending nonzero
};

// Checks entries [begin, end) of (row[k], col[k]): in range, sorted by (row, column), unique.
// Entry `begin` is compared with its predecessor, too.
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

// crow[r] = number of entries in rows before r, for sorted, in-range rows.
//   row (nnz); crow (rows + 1). Cost: O(nnz + rows).
template <class I>
void compress(const I* row, int64_t nnz, int64_t rows, int64_t* crow) {
  int64_t r = 0;
  for (int64_t k = 0; k < nnz; ++k)
    while (r <= row[k]) crow[r++] = k;
  while (r <= rows) crow[r++] = nnz;
}

}  // namespace tts
