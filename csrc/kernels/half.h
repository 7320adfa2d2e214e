// bfloat16 and float16 activations: how they are read and written. All arithmetic is in float32.
//
// The conversions use integers and no branches, so that the compiler vectorises them for every
// instruction set. Those of float16 follow Marat Dukhan's FP16 library.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace tts {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

TTS_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
TTS_INLINE float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

TTS_INLINE float widen(float value) { return value; }
TTS_INLINE double widen(double value) { return value; }
TTS_INLINE float widen(BFloat16 value) { return from_bits(uint32_t{value.bits} << 16); }
TTS_INLINE float widen(Float16 value) {
  const uint32_t word = uint32_t{value.bits} << 16, twice = word + word;
  const uint32_t normal = bits_of(from_bits((twice >> 4) + (0xE0u << 23)) * 0x1.0p-112f);
  const uint32_t subnormal = bits_of(from_bits((twice >> 17) | (126u << 23)) - 0.5f);
  return from_bits((word & 0x80000000u) | (twice < (1u << 27) ? subnormal : normal));
}

// Rounds to nearest, ties to even. NaN stays NaN; a number that is too large becomes infinite.
TTS_INLINE void narrow(float value, float& to) { to = value; }
TTS_INLINE void narrow(double value, double& to) { to = value; }
TTS_INLINE void narrow(float value, BFloat16& to) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16;
  to.bits = static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
}
TTS_INLINE void narrow(float value, Float16& to) {
  const uint32_t bits = bits_of(value), twice = bits + bits;
  const float magnitude = from_bits(bits & 0x7FFFFFFFu);
  const uint32_t exponent = twice & 0xFF000000u;
  const uint32_t bias = exponent < 0x71000000u ? 0x71000000u : exponent;
  const uint32_t base =
      bits_of(from_bits((bias >> 1) + 0x07800000u) + (magnitude * 0x1.0p+112f) * 0x1.0p-110f);
  const uint32_t finite = ((base >> 13) & 0x7C00u) + (base & 0x0FFFu);
  to.bits = static_cast<uint16_t>(((bits & 0x80000000u) >> 16) |
                                  (twice > 0xFF000000u ? 0x7E00u : finite));
}

// N values of storage type X, widened to a vector of T.
template <class T, int N, class X>
TTS_INLINE Vector<T, N> load_widened(const X* from) {
  if constexpr (sizeof(X) == sizeof(T)) {
    return load<Vector<T, N>>(from);
  } else {
    T wide[N];
    for (int i = 0; i < N; ++i) wide[i] = widen(from[i]);
    return load<Vector<T, N>>(wide);
  }
}

// The values of a vector, narrowed to storage type Y.
template <class T, int N, class Y>
TTS_INLINE void store_narrowed(Y* to, const Vector<T, N>& vector) {
  if constexpr (sizeof(Y) == sizeof(T)) {
    store(to, vector);
  } else {
    T wide[N];
    store(wide, vector);
    for (int i = 0; i < N; ++i) narrow(wide[i], to[i]);
  }
}

}  // namespace tts
