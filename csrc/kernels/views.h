// What the kernels are given: a sparse matrix, activations, and parts of either.
#pragma once

#include <cstdint>

namespace tts {

// Rows, columns or nonzeros [begin, end).
struct Range {
  int64_t begin, end;
};

// The coordinates of the nonzeros of a matrix (rows, columns): nonzero k lies at (row[k], col[k]).
// The extents are to be trusted and the contents are not.
template <class I>
struct CooView {
  const I* row;  // (nnz), each to lie in [0, rows)
  const I* col;  // (nnz), each to lie in [0, columns)
  int64_t nnz, rows, columns;
};

// A sparse matrix (rows, columns) in compressed rows: its nonzeros [crow[r], crow[r + 1]) lie in
// row r. The extents are to be trusted and the contents are not: whoever loads a row pointer or a
// column checks it (bounds.h). T is void where only the pattern is read.
template <class T, class I>
struct CsrView {
  const int64_t* crow;  // (rows + 1)
  const I* col;         // (nnz), each to lie in [0, columns)
  const T* values;      // (nnz), or null where only the pattern is read
  int64_t nnz, rows, columns;
};

// The nonzeros of a CsrView sorted by column, then row: those of column c are
// [ccol[c], ccol[c + 1]), each in row row[k], and nonzero k of this order is nonzero permutation[k]
// of the other. The contents are not to be trusted, either.
template <class I>
struct ColumnOrder {
  const int64_t* ccol;   // (columns + 1), or null where this order is not known
  const I* row;          // (nnz), each to lie in [0, rows)
  const I* permutation;  // (nnz), each to lie in [0, nnz)
};

// The transposed matrix in compressed rows; `values` (nnz) in the order of `order`.
template <class T, class I>
CsrView<T, I> transposed(const CsrView<T, I>& w, const ColumnOrder<I>& order, const T* values) {
  return {order.ccol, order.row, values, w.nnz, w.columns, w.rows};
}

// Activations (samples, features), row-major, stored as X (half.h); `const X` if they are only
// read.
template <class X>
struct Activations {
  X* data;
  int64_t samples, features;

  // Samples [first, first + count).
  Activations part(int64_t first, int64_t count) const {
    return {data + first * features, count, features};
  }
};

}  // namespace tts
