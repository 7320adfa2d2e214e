// Entries of a block whose magnitude exceeds a threshold and whose positions are empty.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd.h"

namespace tts {

// Number of entries that one word of a bit set holds.
constexpr int64_t word_bits = 64;

inline int64_t words_of(int64_t n) { return (n + word_bits - 1) / word_bits; }

// Sets bit i % 64 of set[i / 64] for every entry i of x (n) whose position start + i is empty and
// for which |x[i]| > threshold; a negative threshold takes every empty position. *total = number of
// bits set.
//   set      (words_of(n))
//   occupied (count) the positions that are not empty, in [start, start + n), not decreasing;
//            start + n < 2^63
// Returns false if `occupied` is not as required; no content makes the kernel touch other memory.
// Cost: O(n + count); each entry is read once, in a vector loop on bytes.
template <class T>
struct MarkEmptyAbove {
  template <int Bytes>
  static TTS_INLINE bool apply(const T* x, int64_t n, T threshold, const int64_t* occupied,
                               int64_t count, int64_t start, uint64_t* set, int64_t* total) {
    constexpr int64_t piece = 1024;  // the bytes stay in the first-level cache
    alignas(64) uint8_t marked[piece];
    const bool all = threshold < 0;
    int64_t taken = 0, found = 0;
    for (int64_t begin = 0; begin < n; begin += piece) {
      const int64_t length = std::min(piece, n - begin);
      if (length < piece) std::memset(marked, 0, sizeof(marked));
      if (all)
        std::memset(marked, 1, static_cast<size_t>(length));
      else
        for (int64_t i = 0; i < length; ++i) marked[i] = std::abs(x[begin + i]) > threshold;
      const uint64_t first = static_cast<uint64_t>(start) + static_cast<uint64_t>(begin);
      uint64_t least = 0;  // the next offset must not be below it
      for (; taken < count; ++taken) {
        const uint64_t offset = static_cast<uint64_t>(occupied[taken]) - first;
        if (offset - least >= static_cast<uint64_t>(length) - least) break;
        marked[offset] = 0;
        least = offset;
      }
      for (int64_t i = 0; i < length; i += word_bits) {
        uint64_t word = 0;
        for (int byte = 0; byte < 8; ++byte) {
          uint64_t eight;  // bytes of 0 and 1; the product gathers them in its highest byte
          std::memcpy(&eight, marked + i + 8 * byte, 8);
          word |= (eight * 0x0102040810204080u >> 56) << (8 * byte);
        }
        set[(begin + i) / word_bits] = word;
        found += __builtin_popcountll(word);
      }
    }
    *total = found;
    return taken == count;  // a position that decreases, or lies outside, is never taken
  }
};

// Writes start + i to `positions` and |x[i]| (0 for NaN) to `magnitudes`, for every i whose bit is
// set in `set` (words_of(n)), in increasing order. Cost: O(n / 64 + number of bits set).
template <class T>
void write_marked(const T* x, int64_t n, const uint64_t* set, int64_t start, int64_t* positions,
                  T* magnitudes) {
  for (int64_t word = 0; word < words_of(n); ++word)
    for (uint64_t left = set[word]; left != 0; left &= left - 1) {
      const int64_t i = word * word_bits + __builtin_ctzll(left);
      *positions++ = start + i;
      *magnitudes++ = x[i] == x[i] ? std::abs(x[i]) : T(0);
    }
}

}  // namespace tts
