// Between row-major activations and tiles of samples that lie side by side.
//
// Activations are row-major (batch, features), so the same feature of neighbouring samples lies
// far apart. The kernels work on tiles of L samples in which the L values of a feature are
// contiguous: one nonzero weight is then one broadcast and one multiply-add on contiguous memory.
// Blocks of W x W values are transposed in registers on the way in and on the way out, so no
// transposed copy of more than a tile exists.
#pragma once

#include <cstdint>

#include "half.h"
#include "simd.h"

namespace tts {

// L samples are as many streams, more than the hardware prefetches: the next lines are asked for
// this many features ahead (measured: 10.6 to 4 ms for the weight gradient of 768 x 3072 at batch
// 2048, density .02). A prefetch past the end of x is harmless.
constexpr int prefetch_ahead = 32;

// tile[(f - begin) * Stride + s] = x[s * features + f] for f in [begin, end), s < samples; the
// lanes from `samples` to L become zero.
//   x     (samples, features) row-major, 1 <= samples <= L
//   tile  (end - begin, Stride >= L), does not alias x
// Cost: O((end - begin) L).
template <class T, int L, int Bytes, int Stride = L, class X>
TTS_INLINE void fill_tile(const X* x, int64_t samples, int64_t features, int64_t begin,
                          int64_t end, T* tile) {
  constexpr int W = Lanes<T, L, Bytes>::width;
  using V = typename Lanes<T, L, Bytes>::V;
  int64_t f = begin;
  if constexpr (W >= 4) {
    for (; f + W <= end; f += W) {
      for (int first = 0; first < L; first += W) {
        V block[W];
        for (int i = 0; i < W; ++i) {
          const X* from = x + (first + i) * features + f;
          block[i] = first + i < samples ? load_widened<T, W>(from) : V{};
          __builtin_prefetch(from + prefetch_ahead);
        }
        transpose_block<W / 2>(block);
        for (int i = 0; i < W; ++i) store(tile + (f - begin + i) * Stride + first, block[i]);
      }
    }
  }
  for (; f < end; ++f)
    for (int s = 0; s < L; ++s)
      tile[(f - begin) * Stride + s] = s < samples ? widen(x[s * features + f]) : T(0);
}

// y[s * rows + g] = sums[g * L + s] for g < count, s < samples: the way out.
//   sums  (count, L)
//   y     (samples, rows) row-major, at its first row to write; does not alias sums
// Cost: O(count samples).
template <class T, int L, int Bytes, class Y>
TTS_INLINE void write_rows(const T* sums, int64_t count, int64_t samples, Y* y, int64_t rows) {
  constexpr int W = Lanes<T, L, Bytes>::width;
  using V = typename Lanes<T, L, Bytes>::V;
  int64_t g = 0;
  if constexpr (W >= 4) {
    for (; g + W <= count; g += W) {
      for (int first = 0; first < samples; first += W) {
        V block[W];
        for (int i = 0; i < W; ++i) block[i] = load<V>(sums + (g + i) * L + first);
        transpose_block<W / 2>(block);
        for (int i = 0; i < W; ++i)
          if (first + i < samples) store_narrowed<T, W>(y + (first + i) * rows + g, block[i]);
      }
    }
  }
  for (; g < count; ++g)
    for (int64_t s = 0; s < samples; ++s) narrow(sums[g * L + s], y[s * rows + g]);
}

// fill_tile on features [begin, end) of a tile of all features.
template <class X, class T, int L>
struct FillTile {
  template <int Bytes>
  static TTS_INLINE bool apply(const X* x, int64_t samples, int64_t features, int64_t begin,
                               int64_t end, T* tile) {
    fill_tile<T, L, Bytes>(x, samples, features, begin, end, tile + begin * L);
    return true;
  }
};

// The same for a tile (features, 2 L) that keeps room for sums beside the samples, set to zero.
template <class X, class T, int L>
struct FillTileBesideSums {
  template <int Bytes>
  static TTS_INLINE bool apply(const X* x, int64_t samples, int64_t features, int64_t begin,
                               int64_t end, T* tile) {
    fill_tile<T, L, Bytes, 2 * L>(x, samples, features, begin, end, tile + begin * 2 * L);
    for (int64_t f = begin; f < end; ++f)
      for (int s = 0; s < L; ++s) tile[f * 2 * L + L + s] = T(0);
    return true;
  }
};

// out[f] (+)= sum over s of tile[f, s] for f in [begin, end); a fixed order of s.
//   tile (features, L), lanes without a sample are zero; out (features), no alias
// Cost: O((end - begin) L).
template <class T, int L>
struct SumTile {
  template <int Bytes>
  static TTS_INLINE bool apply(const T* tile, int64_t begin, int64_t end, bool accumulate,
                               T* out) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int W = Lanes<T, L, Bytes>::width, count = Lanes<T, L, Bytes>::count;
    const auto sum_of = [&](int64_t f) __attribute__((always_inline)) {
      V sum = load<V>(tile + f * L);
      for (int v = 1; v < count; ++v) sum += load<V>(tile + f * L + v * W);
      return sum;
    };
    int64_t f = begin;
    for (; f + W <= end; f += W) {
      V sums = sum_lanes<W, 1, 0>([&](auto j) __attribute__((always_inline)) {
        return sum_of(f + j);
      });
      if (accumulate) sums += load<V>(out + f);
      store(out + f, sums);
    }
    for (; f < end; ++f) {  // the same tree, of which one lane counts
      const V one = sum_of(f);
      const V sums = sum_lanes<W, 1, 0>([&](auto) __attribute__((always_inline)) { return one; });
      T lanes[W];
      store(lanes, sums);
      out[f] = accumulate ? out[f] + lanes[0] : lanes[0];
    }
    return true;
  }
};

}  // namespace tts
