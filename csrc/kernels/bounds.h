// Range safety, fused into the loops.
//
// A user may have written anything into the memory of the indices, so the kernels trust no index
// that they load: one unsigned comparison catches negative and too large indices, the access is
// clamped to element 0, and the error is recorded. The caller raises it after the loop.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "simd.h"
#include "views.h"

namespace tts {

// Returns `index` if 0 <= index < extent, otherwise 0 with `in_range` cleared. extent >= 1.
template <class I>
TTS_INLINE int64_t clamp_index(I index, int64_t extent, bool& in_range) {
  const auto position = static_cast<uint64_t>(static_cast<std::make_unsigned_t<I>>(index));
  const bool inside = position < static_cast<uint64_t>(extent);
  in_range &= inside;
  return inside ? static_cast<int64_t>(position) : 0;
}

// checked[i] = col[i] clamped as above, for i < count. The compiler vectorises this loop, so that
// the check costs a fraction of an instruction per index.
template <class I>
TTS_INLINE void clamp_indices(const I* col, int64_t count, int64_t extent, I* checked,
                              bool& in_range) {
  using U = std::make_unsigned_t<I>;
  constexpr auto most = static_cast<uint64_t>(std::numeric_limits<I>::max()) + 1;
  const auto limit =
      static_cast<U>(static_cast<uint64_t>(extent) < most ? static_cast<uint64_t>(extent) : most);
  U outside = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto position = static_cast<U>(col[i]);
    outside |= position < limit ? U(0) : U(1);
    checked[i] = static_cast<I>(position < limit ? position : U(0));
  }
  in_range &= outside == 0;
}

// The nonzeros of row `row`, a range within [0, nnz). For an ill-formed row the range is empty and
// `in_range` is cleared.
template <class View>
TTS_INLINE Range nonzeros_of(const View& w, int64_t row, bool& in_range) {
  const int64_t begin = w.crow[row], end = w.crow[row + 1];
  const bool inside = begin >= 0 && begin <= end && end <= w.nnz;
  in_range &= inside;
  return inside ? Range{begin, end} : Range{0, 0};
}

// The nonzeros of `rows` (at least one row), checked as a whole: their row pointers must lie in
// [0, nnz] and must not decrease. Otherwise the range is empty and `in_range` is cleared.
template <class T, class I>
TTS_INLINE Range nonzeros_of(const CsrView<T, I>& w, Range rows, bool& in_range) {
  bool inside = w.crow[rows.begin] >= 0 && w.crow[rows.end] <= w.nnz;
  for (int64_t row = rows.begin; row < rows.end; ++row) inside &= w.crow[row] <= w.crow[row + 1];
  in_range &= inside;
  return inside ? Range{w.crow[rows.begin], w.crow[rows.end]} : Range{0, 0};
}

}  // namespace tts
