// Instruction sets and short vectors.
//
// Every kernel is written once, as `struct Kernel { template <int Bytes> static bool apply(...) }`
// with a force-inlined body; `Bytes` is the width of the vector registers that the body uses.
// `run<Kernel>(isa, arguments...)` calls the body from a function that is compiled for the wanted
// instruction set. One source thus serves all instruction sets, and no code outside these functions
// uses an instruction beyond the baseline.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "compiler.h"

#if defined(__x86_64__)
#define TTS_X86 1
#else
#define TTS_X86 0
#endif

#define TTS_INLINE inline __attribute__((always_inline))

namespace tts {

enum class Isa { scalar, avx2, avx512, neon };

// `N` values of type T, a GNU vector; arithmetic on it is elementwise.
template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * N)));
};
template <class T>
struct VectorOf<T, 1> {
  using type = T;
};
template <class T, int N>
using Vector = typename VectorOf<T, N>::type;

// How L values lie in registers of `Bytes` bytes: `count` vectors of `width` values.
template <class T, int L, int Bytes>
struct Lanes {
  static constexpr int room = Bytes / static_cast<int>(sizeof(T));
  static constexpr int width = L < room ? L : room;
  static constexpr int count = L / width;
  using V = Vector<T, width>;
};

template <class V, class T>
TTS_INLINE V load(const T* from) {
  if constexpr (sizeof(V) == 8 && sizeof(T) == 4) {
    return V{from[0], from[1]};  // GCC takes a copy of 8 bytes through an integer register
  } else {
    V vector;
    std::memcpy(&vector, from, sizeof(V));  // an unaligned vector load
    return vector;
  }
}

template <class V, class T>
TTS_INLINE void store(T* to, const V& vector) {
  std::memcpy(to, &vector, sizeof(V));
}

// Weights are read in order while their activations are read at random, and the hardware's own
// prefetching of the weights falls behind. The kernels prefetch the weights this many nonzeros
// ahead (measured: 1.05 to 0.70 ns a nonzero for 300,000 x 300,000 at 2 samples).
constexpr int64_t stream_ahead = 512;

// Prefetches the cache lines of [from, from + count), which may lie beyond the end of an array.
template <class T>
TTS_INLINE void prefetch_stream(const T* from, int64_t count) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < count; i += line) __builtin_prefetch(from + i);
}

// The two permutations that transposes and sums over lanes are composed of. For lane i of N, with H
// a power of two below N:
//   blend<H>: i & H ? b[i] : a[i]            exchange<H>: i & H ? b[i - H] : a[i + H]
template <int H, class V, size_t... i>
TTS_INLINE V blend(const V& a, const V& b, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, b, (i & H ? sizeof...(i) + i : i)...);
}
template <int H, class V, size_t... i>
TTS_INLINE V exchange(const V& a, const V& b, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, b, (i & H ? sizeof...(i) + i - H : i + H)...);
}

// The lanes of a, then those of b; the sums of neighbouring lanes; every lane twice.
template <class V, size_t... i>
TTS_INLINE auto concatenate(const V& a, const V& b, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, b, i...);
}
template <class V, size_t... i>
TTS_INLINE auto sum_pairs(const V& a, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, a, 2 * i...) + __builtin_shufflevector(a, a, 2 * i + 1 ...);
}
template <class V, size_t... i>
TTS_INLINE auto repeat_pairs(const V& a, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, a, (i / 2)...);
}

// Sums the halves of a vector, their halves and so on, until L lanes are left.
template <class V, size_t... i>
TTS_INLINE auto sum_halves(const V& a, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, a, i...) + __builtin_shufflevector(a, a, (i + sizeof...(i))...);
}
template <int L, class V>
TTS_INLINE auto fold_lanes(const V& a) {
  constexpr int N = sizeof(V) / sizeof(a[0]);
  if constexpr (N == L)
    return a;
  else if constexpr (N == 2)
    return a[0] + a[1];
  else
    return fold_lanes<L>(sum_halves(a, std::make_index_sequence<N / 2>{}));
}

// Transposes the N x N block whose rows are v[0..N) in log2(N) stages; the stage of H swaps the
// off-diagonal quarters of each block of 2H x 2H.
template <int H, class V, int N>
TTS_INLINE void transpose_block(V (&v)[N]) {
  using Index = std::make_index_sequence<N>;
  for (int i = 0; i < N; ++i) {
    if (i & H) continue;
    const V swapped = exchange<H>(v[i], v[i + H], Index{});
    v[i] = blend<H>(v[i], swapped, Index{});
    v[i + H] = blend<H>(swapped, v[i + H], Index{});
  }
  if constexpr (H > 1) transpose_block<H / 2>(v);
}

// Sums N vectors over their lanes at once: lane i of the result is the sum of the lanes of
// vector(i). The order of the sum is a balanced tree that depends on N alone, the same for every i.
template <int N, int H, int i, class F>
TTS_INLINE auto sum_lanes(const F& vector) {
  if constexpr (H == N) {
    return vector(std::integral_constant<int, i>{});
  } else {
    using Index = std::make_index_sequence<N>;
    const auto a = sum_lanes<N, 2 * H, i>(vector), b = sum_lanes<N, 2 * H, i + H>(vector);
    return blend<H>(a, b, Index{}) + exchange<H>(a, b, Index{});
  }
}

// Returns a vector of N lanes: lanes [g L, (g + 1) L) are the L lanes of group(g).
template <int N, int L, int g, class F>
TTS_INLINE auto pack(const F& group) {
  if constexpr (N == L) {
    return group(std::integral_constant<int, g>{});
  } else {
    const auto a = pack<N / 2, L, g>(group), b = pack<N / 2, L, g + N / 2 / L>(group);
    return concatenate(a, b, std::make_index_sequence<N>{});
  }
}

template <class Kernel, class... Args>
bool run_baseline(const Args&... args) {
  return Kernel::template apply<16>(args...);
}

#if TTS_X86
template <class Kernel, class... Args>
__attribute__((target("avx2,fma"))) bool run_avx2(const Args&... args) {
  return Kernel::template apply<32>(args...);
}
template <class Kernel, class... Args>
__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))) bool run_avx512(
    const Args&... args) {
  return Kernel::template apply<64>(args...);
}
#endif

// Runs `Kernel::apply<register bytes>(args...)` compiled for `isa`. On Arm, NEON is the baseline.
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
