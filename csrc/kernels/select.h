// Exact selection of the smallest numbers without a sort: a radix search finds the largest key to
// be selected, then one pass marks the numbers up to it.
//
// Each number is mapped to an unsigned key of the same order, made of the bits of the number. The
// search finds the boundary key digit by digit: among the keys that begin with the digits found so
// far, a histogram of the next digit says what that digit is. Histograms hold whole numbers, so
// that the result is the same for any number of threads.
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

// The sign bit and the bits of infinity of a float or double.
template <class T>
struct FloatBits {
  using U = KeyOf<T>;
  static constexpr U sign = U(1) << (8 * sizeof(U) - 1);
  static constexpr U infinity =
      sizeof(T) == 4 ? U(0x7F800000) : static_cast<U>(uint64_t{0x7FF} << 52);
};

// Keys in the order of the numbers: -inf < ... < -0 = 0 < ... < inf < NaN, all NaN equal. All
// numbers form one side.
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

// Keys in the reverse order, the largest number first: NaN < inf < ... < -inf.
template <class T>
struct ByNumberDown : ByNumber<T> {
  using U = KeyOf<T>;
  TTS_INLINE static U key(T value) { return static_cast<U>(~ByNumber<T>::key(value)); }
};

// Keys in the order of the distance from zero, on two sides: side 1 holds the numbers below 0, side
// 0 all others. NaN belongs to side 0 and is farthest from zero.
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

// The largest key to mark on each side; during the search, the leading digits found so far. At the
// end, the keys below `key` are to be marked, and of the keys equal to `key` the first `equal`.
template <class U>
struct Boundary {
  U key[2];
  int64_t equal[2];
};

// counts[(side << bits) + digit] += 1 for each number of x (n) whose key begins with the digits of
// the boundary of its side. The digit has `bits` bits and `shift` bits below it. `first`: no digit
// of the boundary is known yet. Cost: O(n).
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

// Finds the next digit of the boundary of one side. counts (1 << bits) sum to boundary.equal[side]
// or more. Cost: O(1 << bits).
template <class U>
void next_digit(const int64_t* counts, int bits, int side, Boundary<U>& boundary) {
  int64_t wanted = boundary.equal[side];
  U digit = 0;
  while (wanted > counts[digit]) wanted -= counts[digit++];
  boundary.key[side] = static_cast<U>(boundary.key[side] << bits) | digit;
  boundary.equal[side] = wanted;
}

// marked[i] = 1 if the key of x[i] lies below the boundary of its side, otherwise 0, for
// i < n < 2^32; ties[side] = number of keys equal to the boundary. Cost: O(n).
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

// Marks, on each side, the first quota[side] numbers of x (n) whose key equals the boundary.
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

// Writes the marked entries of x and y (n) in order, at most `room` of each. Nothing aliases.
// Cost: O(n).
template <class T>
void pack_marked(const T* x, const int64_t* y, const uint8_t* marked, int64_t n, int64_t room,
                 T* packed_x, int64_t* packed_y) {
  constexpr int64_t block = 256;  // packed without a branch that depends on the marks
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
