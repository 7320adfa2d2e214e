// Range safety, fused into the loops.
//
// Indices reach the kernels from memory that a user may have written in any way, so no loaded
// index is trusted: one unsigned comparison catches negative and too large ones, the access is
// clamped to element 0, and the offence is remembered. The caller raises once the loop is over.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "simd.h"

namespace tts {

// Returns `index` if 0 <= index < extent, otherwise 0 with `in_range` cleared. extent >= 1.
template <class I>
TTS_INLINE int64_t clamp_index(I index, int64_t extent, bool& in_range) {
  const auto position = static_cast<uint64_t>(static_cast<std::make_unsigned_t<I>>(index));
  const bool inside = position < static_cast<uint64_t>(extent);
  in_range &= inside;
  return inside ? static_cast<int64_t>(position) : 0;
}

// checked[i] = col[i] clamped as above, for i < count: the same check as one loop that the compiler
// vectorises, so that it costs a fraction of an instruction per index.
template <class I>
TTS_INLINE void clamp_indices(const I* col, int64_t count, int64_t extent, I* checked,
                              bool& in_range) {
  using U = std::make_unsigned_t<I>;
  constexpr auto most = static_cast<uint64_t>(std::numeric_limits<I>::max()) + 1;
  const auto limit = static_cast<U>(
      static_cast<uint64_t>(extent) < most ? static_cast<uint64_t>(extent) : most);
  U outside = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto position = static_cast<U>(col[i]);
    outside |= position < limit ? U(0) : U(1);
    checked[i] = static_cast<I>(position < limit ? position : U(0));
  }
  in_range &= outside == 0;
}

// The entries of one compressed row: [begin, end) within [0, nnz).
struct RowRange {
  int64_t begin, end;
};

// Row `row` of `crow` (row pointers, 64-bit); an ill-formed row comes back empty and clears
// `in_range`.
TTS_INLINE RowRange row_range(const int64_t* crow, int64_t row, int64_t nnz, bool& in_range) {
  const int64_t begin = crow[row], end = crow[row + 1];
  const bool inside = begin >= 0 && begin <= end && end <= nnz;
  in_range &= inside;
  return inside ? RowRange{begin, end} : RowRange{0, 0};
}

// The entries of rows [first, last), last > first, checked as a whole: the row pointers in between
// must not leave the range nor fall.
TTS_INLINE RowRange row_range(const int64_t* crow, int64_t first, int64_t last, int64_t nnz,
                              bool& in_range) {
  bool inside = crow[first] >= 0 && crow[last] <= nnz;
  for (int64_t row = first; row < last; ++row) inside &= crow[row] <= crow[row + 1];
  in_range &= inside;
  return inside ? RowRange{crow[first], crow[last]} : RowRange{0, 0};
}

}  // namespace tts
