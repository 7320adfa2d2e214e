// Cuts long arrays into pieces of a fixed length, and counts the entries before each piece.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../kernels/mask.h"
#include "isa.h"
#include "parallel.h"

namespace tts {

// Entries in a piece: enough to be worth a fork, few enough for every thread to get several pieces.
constexpr int64_t piece_length = 1 << 15;

inline int64_t pieces_of(int64_t n) { return (n + piece_length - 1) / piece_length; }

// Calls f(begin, end, piece, worker) for every piece of [0, n), in parallel. Each call returns
// whether it succeeded; this function returns whether all calls did. f must not throw.
template <class F>
bool for_each_piece(int64_t n, int64_t workers, const F& f) {
  return parallel_items(pieces_of(n), workers, [&](int64_t piece, int64_t worker) {
    const int64_t begin = piece * piece_length;
    return f(begin, std::min(begin + piece_length, n), piece, worker);
  });
}

// Turns counts into the sums of all counts before each one, with the total at the end.
inline std::vector<int64_t> sums_before(std::vector<int64_t> counts) {
  int64_t total = 0;
  for (int64_t& count : counts) {
    const int64_t before = total;
    total += count;
    count = before;
  }
  counts.push_back(total);
  return counts;
}

// Returns how many entries of a mask (n) are set before each piece, with the total at the end.
inline std::vector<int64_t> set_before(const uint8_t* mask, int64_t n) {
  std::vector<int64_t> counts(static_cast<size_t>(pieces_of(n)));
  const Isa isa = active_isa();
  for_each_piece(n, available_threads(), [&](int64_t begin, int64_t end, int64_t piece, int64_t) {
    return run<CountSet>(isa, mask + begin, end - begin, &counts[static_cast<size_t>(piece)]);
  });
  return sums_before(std::move(counts));
}

}  // namespace tts
