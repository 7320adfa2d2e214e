// The arguments of the kernels: views of a sparse matrix and of activations, and ranges in them.
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
// row r. Kernels trust the extents but not the contents: code that loads a row pointer or a column
// checks it (bounds.h). T is void where only the pattern is read.
template <class T, class I>
struct CsrView {
  const int64_t* crow;  // (rows + 1)
  const I* col;         // (nnz), each to lie in [0, columns)
  const T* values;      // (nnz), or null where only the pattern is read
  int64_t nnz, rows, columns;
};

// The order by columns of a CsrView: its nonzeros sorted by column, then row. Nonzeros
// [ccol[c], ccol[c + 1]) lie in column c, nonzero k lies in row row[k], and it is nonzero
// permutation[k] of the CsrView. Kernels do not trust these contents, either.
template <class I>
struct ColumnOrder {
  const int64_t* ccol;   // (columns + 1), or null where the order has not been derived
  const I* row;          // (nnz), each to lie in [0, rows)
  const I* permutation;  // (nnz), each to lie in [0, nnz)
};

// The transposed matrix in compressed rows; `values` (nnz) are in the order by columns of w.
template <class T, class I>
CsrView<T, I> transposed(const CsrView<T, I>& w, const ColumnOrder<I>& order, const T* values) {
  return {order.ccol, order.row, values, w.nnz, w.columns, w.rows};
}

// How the values of a packed matrix are stored.
enum class Stored { float32, bfloat16, int8 };

// A matrix up to this many columns is packed with its columns as they are, a wider one with gaps.
constexpr int64_t plain_codes = int64_t{1} << 16;
constexpr uint16_t skip_code = 0xFFFF;

// A sparse matrix (rows, columns) for inference: entries [crow[r], crow[r + 1]) belong to row r.
//   columns <= plain_codes: codes[k] is the column of entry k.
//   columns > plain_codes:  codes[k] is the distance from the column of the entry before it in the
//   row, or from column 0. skip_code stands for 65,535 columns without a nonzero; its value is not
//   read.
// The value of an entry is what is stored, times scales[r] if there are scales. Kernels trust the
// extents but not the contents.
struct PackedView {
  const int64_t* crow;    // (rows + 1)
  const uint16_t* codes;  // (nnz)
  const void* values;     // (nnz), of the type that `stored` says
  Stored stored;
  const float* scales;  // (rows), or null
  int64_t nnz, rows, columns;
};

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
