// Merges the surviving and the regrown connections of a topology into one sorted order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "positions.h"

namespace tts {

// A defect of the connections to be merged.
enum class MergeDefect { none, range, order, duplicate };

// Merges one piece: writes the unmasked ones of connections [begin, end) of the present topology
// and the regrown positions [first, last), both increasing, to out_row, out_col and source, from
// entry `to` on. source[j] = i if entry j is connection i of the present topology, ~g if it is
// regrown position g.
//   row, col: the present topology, a matrix of rows x columns, columns >= 1
//   mask: not 0 for each connection to leave out
//   room: number of entries that the outputs hold from `to` on; no more are written
//   least, most: the positions of this piece must lie in [least, most)
// Nothing aliases. Checks that coordinates are in range and that the result strictly increases.
// Cost: O(end - begin + last - first).
template <class I, class J>
MergeDefect merge_piece(const I* row, const I* col, const uint8_t* mask, int64_t begin, int64_t end,
                        const int64_t* regrown, int64_t first, int64_t last, int64_t rows,
                        int64_t columns, uint64_t least, uint64_t most, int64_t to, int64_t room,
                        J* out_row, J* out_col, J* source) {
  constexpr int64_t block = 256;
  uint64_t kept[block], merged[2 * block];
  J kept_from[block], from[2 * block];
  RowFinder finder(columns);
  bool in_range = true, distinct = true, increasing = true;
  int64_t done = 0, g = first;

  while (begin < end || g < last) {
    int64_t packed = 0;
    for (const int64_t stop = std::min(end, begin + block); begin < stop; ++begin) {
      in_range &= static_cast<uint64_t>(row[begin]) < static_cast<uint64_t>(rows);
      in_range &= static_cast<uint64_t>(col[begin]) < static_cast<uint64_t>(columns);
      kept[packed] = position_of(row[begin], col[begin], columns);
      kept_from[packed] = static_cast<J>(begin);
      packed += mask[begin] == 0;
    }
    int64_t s = 0;
    do {
      // No branch in this loop depends on the numbers; no step passes the end of either side.
      int64_t n = 0;
      const int64_t stop = std::min(last, g + block);
      while (s < packed && g < stop) {
        const uint64_t survivor = kept[s], newcomer = static_cast<uint64_t>(regrown[g]);
        const bool take = newcomer < survivor;
        distinct &= newcomer != survivor;
        const J origin = kept_from[s];
        merged[n] = std::min(newcomer, survivor);
        from[n++] = origin ^ ((origin ^ static_cast<J>(~g)) & -static_cast<J>(take));
        g += take;
        s += !take;
      }
      if (g == last)  // only survivors are left
        for (; s < packed; ++s, ++n) {
          merged[n] = kept[s];
          from[n] = kept_from[s];
        }
      if (begin == end)  // only newcomers are left
        for (; s == packed && g < stop; ++g, ++n) {
          merged[n] = static_cast<uint64_t>(regrown[g]);
          from[n] = static_cast<J>(~g);
        }

      if (n > room - done) return MergeDefect::order;
      for (int64_t i = 0; i < n; ++i) {
        increasing &= merged[i] >= least;
        least = merged[i] + 1;  // the least value of the next position
        finder.split(merged[i], out_row + to + done + i, out_col + to + done + i);
      }
      std::copy(from, from + n, source + to + done);
      done += n;
    } while (s < packed);
  }
  if (!in_range) return MergeDefect::range;
  if (!distinct) return MergeDefect::duplicate;
  increasing &= least <= most && done == room;
  return increasing ? MergeDefect::none : MergeDefect::order;
}

}  // namespace tts
