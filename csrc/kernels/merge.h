// Merges the surviving and the regrown connections of a topology into one sorted order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "positions.h"

namespace tts {

// A defect of the connections to be merged.
enum class MergeDefect { none, range, order, duplicate };

// A part of a merge, which other parts run beside.
struct MergePiece {
  Range present;         // its connections of the present topology
  Range regrown;         // its regrown positions
  uint64_t least, most;  // its positions are to lie in [least, most)
  int64_t to, room;      // its entries of the result: those from `to` on, and no more than `room`
};

// The result of a merge, each (total): coordinates, and where each connection comes from, which is
// the number i of a connection of the present topology, or ~g for the regrown position number g.
template <class J>
struct Merged {
  J *row, *col, *source;
};

// Merges the connections of one piece, without the masked ones, and its regrown positions, both
// increasing, into one increasing order.
//   w     the present topology, columns >= 1; mask (nnz)
// Nothing aliases. Checks that coordinates are in range and the result strictly increasing.
// Cost: O(connections and regrown positions of the piece).
template <class I, class J>
MergeDefect merge_piece(const CooView<I>& w, const uint8_t* mask, const int64_t* regrown,
                        const MergePiece& piece, const Merged<J>& out) {
  const I *row = w.row, *col = w.col;
  const int64_t rows = w.rows, columns = w.columns, to = piece.to, room = piece.room;
  const int64_t end = piece.present.end, last = piece.regrown.end;
  int64_t begin = piece.present.begin;
  uint64_t least = piece.least;
  constexpr int64_t block = 256;
  uint64_t kept[block], merged[2 * block];
  J kept_from[block], from[2 * block];
  RowFinder finder(columns);
  bool in_range = true, distinct = true, increasing = true;
  int64_t done = 0, g = piece.regrown.begin;

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
        least = merged[i] + 1;  // that the next position may have
        finder.split(merged[i], out.row + to + done + i, out.col + to + done + i);
      }
      std::copy(from, from + n, out.source + to + done);
      done += n;
    } while (s < packed);
  }
  if (!in_range) return MergeDefect::range;
  if (!distinct) return MergeDefect::duplicate;
  increasing &= least <= piece.most && done == room;
  return increasing ? MergeDefect::none : MergeDefect::order;
}

}  // namespace tts
