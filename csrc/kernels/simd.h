// Instruction sets and short vectors.
//
// Every kernel is written once, as `struct Kernel { static bool apply(...) }` whose body is
// force-inlined. `run<Kernel>(isa, arguments...)` calls it from a function that is compiled for
// the wanted instruction set, so the compiler vectorises the same source once for each, and
// nothing outside these marked functions uses an instruction beyond the baseline.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#define TTS_X86 1
#else
#define TTS_X86 0
#endif

#define TTS_INLINE inline __attribute__((always_inline))

namespace tts {

enum class Isa { scalar, avx2, avx512, neon };

// `L` values of type T, a GNU vector; arithmetic on it is elementwise.
template <class T, int L>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * L)));
};
template <class T>
struct VectorOf<T, 1> {
  using type = T;
};
template <class T, int L>
using Vector = typename VectorOf<T, L>::type;

template <class V, class T>
TTS_INLINE V load(const T* from) {
  V vector;
  std::memcpy(&vector, from, sizeof(V));  // an unaligned vector load
  return vector;
}

template <class V, class T>
TTS_INLINE void store(T* to, const V& vector) {
  std::memcpy(to, &vector, sizeof(V));
}

// Sum of the lanes, as a balanced tree: the order is fixed by L alone.
template <class T, int L>
TTS_INLINE T sum_lanes(const Vector<T, L>& vector) {
  T lanes[L];
  store(lanes, vector);
  for (int width = L / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

template <class Kernel, class... Args>
bool run_baseline(const Args&... args) {
  return Kernel::apply(args...);
}

#if TTS_X86
template <class Kernel, class... Args>
__attribute__((target("avx2,fma"))) bool run_avx2(const Args&... args) {
  return Kernel::apply(args...);
}
template <class Kernel, class... Args>
__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))) bool run_avx512(
    const Args&... args) {
  return Kernel::apply(args...);
}
#endif

// Runs `Kernel::apply(args...)` compiled for `isa`. On Arm, NEON is the baseline.
template <class Kernel, class... Args>
bool run(Isa isa, const Args&... args) {
#if TTS_X86
  if (isa == Isa::avx512) return run_avx512<Kernel>(args...);
  if (isa == Isa::avx2) return run_avx2<Kernel>(args...);
#endif
  (void)isa;
  return run_baseline<Kernel>(args...);
}

}  // namespace tts
