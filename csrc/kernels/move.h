// Carries one number per connection over from a topology to the next one.
#pragma once

#include <cstdint>

#include "simd.h"

namespace tts {

// out[j] = entries[source[j]], or fresh[~source[j] * step] where source[j] is negative, for
// j in [begin, end). T is any type of the entries' size.
//   entries (n); fresh (count) with step 1, or one number for all with step 0
// Nothing aliases. Returns false if a source lies outside `entries` or `fresh` (out[j] is then
// meaningless).
// Cost: O(end - begin).
template <class T, class J>
bool move(const T* entries, int64_t n, const T* fresh, int64_t count, int64_t step, const J* source,
          int64_t begin, int64_t end, T* out) {
  // The signs of the sources follow no pattern, so that a branch on them would often be
  // mispredicted. Tables, and masks made of the comparisons, take its place.
  const T none{};
  const T* base[] = {n > 0 ? entries : &none, count > 0 ? fresh : &none};
  const uint64_t limit[] = {static_cast<uint64_t>(n), static_cast<uint64_t>(count)};
  const uint64_t strides[] = {~uint64_t{0}, step == 0 ? uint64_t{0} : ~uint64_t{0}};
  bool in_range = true;
  for (int64_t j = begin; j < end; ++j) {
    const auto at = static_cast<int64_t>(source[j]);
    const unsigned side = at < 0;
    const auto index = static_cast<uint64_t>(at) ^ (uint64_t{0} - side);  // ~at where negative
    const bool inside = index < limit[side];
    in_range &= inside;
    out[j] = base[side][index & strides[side] & (uint64_t{0} - inside)];
  }
  return in_range;
}

}  // namespace tts
