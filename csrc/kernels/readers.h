// Readers bring the nonzeros of a matrix, a few hundred at a time, into the form that the loops of
// the forward product take: columns in range, values of the type of the sums.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "half.h"
#include "simd.h"
#include "views.h"

namespace tts {

// Number of columns that are checked together, ahead of their use. Windows begin at multiples of
// their size. A window may cut a row, which changes the order of the row's sum; where it cuts must
// therefore not depend on the rows that a call is given.
constexpr int column_window = 512;

// Consecutive nonzeros of one row. They are valid until the reader reads on.
template <class T, class I>
struct Nonzeros {
  const T* values;
  const I* columns;
  int64_t count;
};

// Reads a CsrView.
template <class T, class I>
struct CsrReader {
  using View = CsrView<T, I>;
  static constexpr bool scaled = false;

  View w;
  alignas(64) I checked[column_window];  // columns [from, to), clamped
  int64_t from = 0, to = 0;

  TTS_INLINE explicit CsrReader(View view) : w(view) {}

  TTS_INLINE void begin_row() {}

  // The next nonzeros of [k, end), which lie in one row; k moves behind them.
  TTS_INLINE Nonzeros<T, I> next(int64_t& k, int64_t end, bool& in_range) {
    if (k < from || k >= to) {
      from = k / column_window * column_window;
      to = w.nnz - from < column_window ? w.nnz : from + column_window;
      clamp_indices(w.col + from, to - from, w.columns, checked, in_range);
      prefetch_stream(w.col + to + stream_ahead, column_window);
      prefetch_stream(w.values + to + stream_ahead, column_window);
    }
    const int64_t first = k;
    k = end < to ? end : to;
    return {w.values + first, checked + (first - from), k - first};
  }
};

// Calls f(values) with the values of a packed matrix as what they are stored as.
template <class F>
TTS_INLINE void as_stored(const PackedView& w, const F& f) {
  if (w.stored == Stored::float32)
    f(static_cast<const float*>(w.values));
  else if (w.stored == Stored::bfloat16)
    f(static_cast<const BFloat16*>(w.values));
  else
    f(static_cast<const int8_t*>(w.values));
}

TTS_INLINE float widen(int8_t value) { return static_cast<float>(value); }

// Reads a PackedView whose codes are columns; the scales are left to the caller. Where a window
// holds a column out of range, none of its entries are handed out.
struct PackedReader {
  using View = PackedView;
  static constexpr bool scaled = true;

  View w;
  alignas(64) float widened[column_window];  // values of entries [from, to), unless float32
  const float* values = nullptr;             // of entry `from`
  int64_t from = 0, to = 0;
  bool usable = true;

  TTS_INLINE explicit PackedReader(View view) : w(view) {}

  TTS_INLINE void begin_row() {}

  TTS_INLINE Nonzeros<float, uint16_t> next(int64_t& k, int64_t end, bool& in_range) {
    if (k < from || k >= to) {
      from = k / column_window * column_window;
      to = w.nnz - from < column_window ? w.nnz : from + column_window;
      uint16_t most = 0;
      for (int64_t i = from; i < to; ++i) most = w.codes[i] > most ? w.codes[i] : most;
      usable = most < w.columns;
      in_range &= usable;
      prefetch_stream(w.codes + to + stream_ahead, column_window);
      if (w.stored == Stored::float32)
        values = static_cast<const float*>(w.values) + from;
      else
        values = widened;
      as_stored(w, [&](const auto* stored) __attribute__((always_inline)) {
        prefetch_stream(stored + to + stream_ahead, column_window);
        if (w.stored != Stored::float32)
          for (int64_t i = 0; i < to - from; ++i) widened[i] = widen(stored[from + i]);
      });
    }
    const int64_t first = k;
    k = end < to ? end : to;
    return {values + (first - from), w.codes + first, usable ? k - first : 0};
  }
};

// Reads a PackedView whose codes are gaps.
struct GapReader {
  using View = PackedView;
  static constexpr bool scaled = true;

  View w;
  int64_t column = 0;  // of the entry before the next one
  alignas(64) int32_t columns[column_window];
  alignas(64) float values[column_window];

  TTS_INLINE explicit GapReader(View view) : w(view) {}

  TTS_INLINE void begin_row() { column = 0; }

  TTS_INLINE Nonzeros<float, int32_t> next(int64_t& k, int64_t end, bool& in_range) {
    const int64_t first = k;
    k = end - first < column_window ? end : first + column_window;
    int64_t count = 0;
    as_stored(w, [&](const auto* stored) __attribute__((always_inline)) {
      for (int64_t i = first; i < k; ++i) {
        const uint16_t code = w.codes[i];
        column += code;
        if (code == skip_code) continue;
        columns[count] = static_cast<int32_t>(clamp_index(column, w.columns, in_range));
        values[count++] = widen(stored[i]);
      }
      prefetch_stream(w.codes + k + stream_ahead, k - first);
      prefetch_stream(stored + k + stream_ahead, k - first);
    });
    return {values, columns, count};
  }
};

}  // namespace tts
