// Masks: one byte for each entry; an entry is set if its byte is not 0.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace tts {

// *total = the number of entries of mask (n) that are set. Cost: O(n).
struct CountSet {
  template <int Bytes>
  static TTS_INLINE bool apply(const uint8_t* mask, int64_t n, int64_t* total) {
    int64_t set = 0;
    for (int64_t begin = 0; begin < n; begin += 1 << 16) {  // a vector loop on narrow counters
      uint32_t some = 0;
      for (int64_t i = begin, end = std::min(n, begin + (1 << 16)); i < end; ++i)
        some += mask[i] != 0;
      set += some;
    }
    *total = set;
    return true;
  }
};

}  // namespace tts
