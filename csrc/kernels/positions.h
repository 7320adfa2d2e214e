// Coordinates and linear positions, row * columns + column, of the entries of a matrix.
#pragma once

#include <algorithm>
#include <cstdint>

#include "views.h"

namespace tts {

// The position of an entry. The arithmetic is unsigned, so that no content of the coordinates
// causes undefined behaviour.
template <class I>
inline uint64_t position_of(I row, I col, int64_t columns) {
  return static_cast<uint64_t>(row) * static_cast<uint64_t>(columns) + static_cast<uint64_t>(col);
}

// Writes the positions of those of the nonzeros `part` of w that are not masked, in order, and at
// most `room` of them. mask (nnz) may be null. Nothing aliases. Returns how many there are.
template <class I>
int64_t unmasked_positions(const CooView<I>& w, const uint8_t* mask, Range part, int64_t room,
                           int64_t* out) {
  constexpr int64_t block = 256;
  int64_t buffer[block], written = 0;
  for (int64_t first = part.begin; first < part.end; first += block) {
    const int64_t last = std::min(part.end, first + block);
    int64_t packed = 0;
    for (int64_t i = first; i < last; ++i) {
      buffer[packed] = static_cast<int64_t>(position_of(w.row[i], w.col[i], w.columns));
      packed += mask == nullptr || mask[i] == 0;
    }
    packed = std::min(packed, room - written);
    std::copy(buffer, buffer + packed, out + written);
    written += packed;
  }
  return written;
}

// Turns positions into coordinates. Successive positions of the same row cost no division.
class RowFinder {
 public:
  explicit RowFinder(int64_t columns) : columns_(static_cast<uint64_t>(columns)) {}

  // position < rows * columns, which makes columns >= 1.
  template <class I>
  void split(uint64_t position, I* row, I* col) {
    uint64_t offset = position - start_;
    if (offset >= columns_) {
      row_ = position / columns_;
      start_ = row_ * columns_;
      offset = position - start_;
    }
    *row = static_cast<I>(row_);
    *col = static_cast<I>(offset);
  }

 private:
  uint64_t columns_, row_ = 0, start_ = 0;
};

// (row[k], col[k]) = the coordinates of positions[k], for k in [begin, end).
// Returns false if a position does not lie in [0, population), population = rows * columns.
// Cost: O(end - begin).
template <class I>
bool split_positions(const int64_t* positions, int64_t begin, int64_t end, uint64_t population,
                     int64_t columns, I* row, I* col) {
  RowFinder rows(columns);
  for (int64_t k = begin; k < end; ++k) {
    const auto position = static_cast<uint64_t>(positions[k]);
    if (position >= population) return false;
    rows.split(position, row + k, col + k);
  }
  return true;
}

// The number of empty positions before occupied[i].
inline int64_t empty_before(const int64_t* occupied, int64_t i) {
  return static_cast<int64_t>(static_cast<uint64_t>(occupied[i]) - static_cast<uint64_t>(i));
}

// out[k] = the empty position of rank ranks[k] (rank 0 is the first one), for k in [begin, end).
//   occupied (n) increasing, ranks increasing; with any other content `out` is meaningless.
// The empty position of a rank lies behind every occupied[i] with empty_before(i) <= rank, and
// before all others. Cost: O(log n + end - begin + the occupied positions in between).
inline void empty_positions(const int64_t* occupied, int64_t n, const int64_t* ranks, int64_t begin,
                            int64_t end, int64_t* out) {
  if (begin >= end) return;
  int64_t i = 0;
  for (int64_t high = n; i < high;) {
    const int64_t middle = i + (high - i) / 2;
    if (empty_before(occupied, middle) <= ranks[begin])
      i = middle + 1;
    else
      high = middle;
  }
  int64_t k = begin;
  while (k < end && i < n) {  // a step of a merge; no branch depends on the numbers
    const int64_t rank = ranks[k];
    const bool passed = empty_before(occupied, i) <= rank;
    out[k] = static_cast<int64_t>(static_cast<uint64_t>(rank) + static_cast<uint64_t>(i));
    i += passed;
    k += !passed;
  }
  for (; k < end; ++k)
    out[k] = static_cast<int64_t>(static_cast<uint64_t>(ranks[k]) + static_cast<uint64_t>(n));
}

}  // namespace tts
