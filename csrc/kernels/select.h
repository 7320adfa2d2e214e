// Exact selection of the smallest, without a sort: a radix search for the largest key that is
// still among them, then one pass that marks.
//
// A number is turned into an unsigned key that sorts as it does (its own bits, nearly). A search
// looks at the keys a digit at a time: a histogram of the digits of those keys that start like the
// one looked for gives its next digit. Histograms are whole numbers, so any split over threads
// gives the same result.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "simd.h"

namespace tts {

template <class T>
using KeyOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// The bits of a float or double, taken apart.
template <class T>
struct FloatBits {
  using U = KeyOf<T>;
  static constexpr U sign = U(1) << (8 * sizeof(U) - 1);
  static constexpr U infinity =
      sizeof(T) == 4 ? U(0x7F800000) : static_cast<U>(uint64_t{0x7FF} << 52);
};

// Numbers as they are: -inf < ... < -0 = 0 < ... < inf < NaN, all NaN equal. One side.
template <class T>
struct ByNumber {
  using Value = T;
  using U = KeyOf<T>;
  static constexpr int sides = 1;
  TTS_INLINE static U key(T value) {
    U bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const U magnitude = bits & static_cast<U>(~FloatBits<T>::sign);
    const U ordered = (bits & FloatBits<T>::sign) != 0
                          ? static_cast<U>(FloatBits<T>::sign - magnitude)
                          : static_cast<U>(FloatBits<T>::sign + magnitude);
    return magnitude > FloatBits<T>::infinity ? std::numeric_limits<U>::max() : ordered;
  }
  TTS_INLINE static unsigned side(T) { return 0; }
};

// The same, the largest first: NaN < inf < ... < -inf.
template <class T>
struct ByNumberDown : ByNumber<T> {
  using U = KeyOf<T>;
  TTS_INLINE static U key(T value) { return static_cast<U>(~ByNumber<T>::key(value)); }
};

// Numbers by their distance from zero, each sign for itself: side 1 holds those below 0, side 0
// all others, NaN among them and farthest from zero.
template <class T>
struct ByMagnitude {
  using Value = T;
  using U = KeyOf<T>;
  static constexpr int sides = 2;
  TTS_INLINE static U key(T value) {
    U bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const U magnitude = bits & static_cast<U>(~FloatBits<T>::sign);
    return magnitude > FloatBits<T>::infinity ? static_cast<U>(FloatBits<T>::sign - 1) : magnitude;
  }
  TTS_INLINE static unsigned side(T value) { return value < 0 ? 1 : 0; }
};

// The largest key to mark on each side, as far as it is known: its leading digits. In the end:
// keys below `key` are marked, and of those equal to it the first `equal`.
template <class U>
struct Boundary {
  U key[2];
  int64_t equal[2];
};

// counts[(side << bits) + digit] += 1 for the numbers of x (n) whose key starts like the boundary
// of their side; the digit has `bits` bits and `shift` bits below it. first: nothing is known yet.
template <class By>
struct CountDigits {
  template <int Bytes>
  static TTS_INLINE bool apply(const typename By::Value* x, int64_t n, bool first, int shift,
                               int bits, const Boundary<typename By::U>& boundary,
                               int64_t* counts) {
    using U = typename By::U;
    const U digit = (U(1) << bits) - 1;
    if (first) {
      for (int64_t i = 0; i < n; ++i)
        ++counts[(uint64_t{By::side(x[i])} << bits) + ((By::key(x[i]) >> shift) & digit)];
      return true;
    }
    for (int64_t i = 0; i < n; ++i) {
      const U key = By::key(x[i]);
      const unsigned side = By::side(x[i]);
      if (((key >> shift) >> bits) == boundary.key[side])
        ++counts[(uint64_t{side} << bits) + ((key >> shift) & digit)];
    }
    return true;
  }
};

// Finds the next digit of one side's boundary. counts (1 << bits); at least boundary.equal[side]
// in all. Cost: O(1 << bits).
template <class U>
void next_digit(const int64_t* counts, int bits, int side, Boundary<U>& boundary) {
  int64_t wanted = boundary.equal[side];
  U digit = 0;
  while (wanted > counts[digit]) wanted -= counts[digit++];
  boundary.key[side] = static_cast<U>(boundary.key[side] << bits) | digit;
  boundary.equal[side] = wanted;
}

// marked[i] = 1 where x[i] lies below the boundary of its side, otherwise 0, for i < n < 2^32;
// ties[side] = how many equal it.
template <class By>
struct MarkBelow {
  template <int Bytes>
  static TTS_INLINE bool apply(const typename By::Value* x, int64_t n,
                               const Boundary<typename By::U>& boundary, uint8_t* marked,
                               int64_t* ties) {
    const auto low = boundary.key[0], high = boundary.key[By::sides - 1];
    typename By::U equal = 0, equal_high = 0;  // as wide as the keys: the loop vectorises
    for (int64_t i = 0; i < n; ++i) {
      const auto key = By::key(x[i]);
      const bool other = By::side(x[i]) != 0;
      const auto limit = other ? high : low;
      marked[i] = key < limit;
      equal += key == limit;
      equal_high += static_cast<typename By::U>((key == limit) & other);
    }
    ties[0] = static_cast<int64_t>(equal - equal_high);
    ties[1] = static_cast<int64_t>(equal_high);
    return true;
  }
};

// Marks the first quota[side] of x (n) that equal the boundary of their side.
template <class By>
void mark_ties(const typename By::Value* x, int64_t n, const Boundary<typename By::U>& boundary,
               const int64_t* quota, uint8_t* marked) {
  int64_t left[2] = {quota[0], quota[1]};
  for (int64_t i = 0; i < n && left[0] + left[1] > 0; ++i) {
    const unsigned side = By::side(x[i]);
    if (By::key(x[i]) == boundary.key[side] && left[side] > 0) {
      marked[i] = 1;
      --left[side];
    }
  }
}

// Writes those of x and y (n) that are marked, in order, at most `room` of each. Nothing aliases.
template <class T>
void pack_marked(const T* x, const int64_t* y, const uint8_t* marked, int64_t n, int64_t room,
                 T* packed_x, int64_t* packed_y) {
  constexpr int64_t block = 256;  // packed without a branch that depends on the numbers
  T some_x[block];
  int64_t some_y[block], written = 0;
  for (int64_t first = 0; first < n; first += block) {
    const int64_t last = std::min(n, first + block);
    int64_t packed = 0;
    for (int64_t i = first; i < last; ++i) {
      some_x[packed] = x[i];
      some_y[packed] = y[i];
      packed += marked[i] != 0;
    }
    packed = std::min(packed, room - written);
    std::copy(some_x, some_x + packed, packed_x + written);
    std::copy(some_y, some_y + packed, packed_y + written);
    written += packed;
  }
}

}  // namespace tts
