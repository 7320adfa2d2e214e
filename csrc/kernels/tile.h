// Transposes between row-major activations and tiles, in which samples lie side by side.
//
// Activations are row-major (batch, features), so that the values of one feature of neighbouring
// samples lie far apart. The kernels work on tiles of L samples in which the L values of a feature
// are contiguous: a nonzero weight then costs one broadcast and one multiply-add on contiguous
// memory. Blocks of W x W values are transposed in registers when a tile is filled and when sums
// are written, so that no transposed copy of more than a tile exists.
#pragma once

#include <cstdint>
#include <type_traits>

#include "half.h"
#include "simd.h"
#include "views.h"

namespace tts {

// A batch is cut into tiles of the widest width; the remaining samples form one tile of the
// narrowest width that holds them.
constexpr int64_t widest_tile_bytes = 128;

template <class T>
constexpr int widest_tile = widest_tile_bytes / static_cast<int>(sizeof(T));

template <class T>
constexpr int tile_width(int64_t samples) {
  return samples <= 1    ? 1
         : samples <= 2  ? 2
         : samples <= 4  ? 4
         : samples <= 8  ? 8
         : samples <= 16 ? 16
                         : widest_tile<T>;
}

// Calls f(integral_constant<int, L>) for L = tile_width<T>(samples).
template <class T, class F>
auto for_tile_width(int64_t samples, const F& f) {
  switch (tile_width<T>(samples)) {
    case 1:
      return f(std::integral_constant<int, 1>{});
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    case 8:
      return f(std::integral_constant<int, 8>{});
    case 16:
      return f(std::integral_constant<int, 16>{});
    default:
      return f(std::integral_constant<int, widest_tile<T>>{});
  }
}

// Filling a tile reads L streams, one a sample, which are more than the hardware prefetches by
// itself. The kernel prefetches each stream this many features ahead (measured: 10.6 to 4 ms for
// the weight gradient of 768 x 3072 at batch 2048, density .02). A prefetch past the end of x is
// harmless.
constexpr int prefetch_ahead = 32;

// tile[i * Stride + s] = x[s, features.begin + i] for every feature of `features` and every sample
// s; lanes x.samples to L - 1 become zero.
//   x     1 <= x.samples <= L
//   tile  (number of features, Stride >= L), does not alias x
// Cost: O(features * L).
template <class T, int L, int Bytes, int Stride = L, class X>
TTS_INLINE void fill_tile(Activations<const X> x, Range features, T* tile) {
  constexpr int W = Lanes<T, L, Bytes>::width;
  using V = typename Lanes<T, L, Bytes>::V;
  const int64_t begin = features.begin;
  int64_t f = begin;
  if constexpr (W >= 4) {
    for (; f + W <= features.end; f += W) {
      for (int first = 0; first < L; first += W) {
        V block[W];
        for (int i = 0; i < W; ++i) {
          const X* from = x.data + (first + i) * x.features + f;
          block[i] = first + i < x.samples ? load_widened<T, W>(from) : V{};
          __builtin_prefetch(from + prefetch_ahead);
        }
        transpose_block<W / 2>(block);
        for (int i = 0; i < W; ++i) store(tile + (f - begin + i) * Stride + first, block[i]);
      }
    }
  }
  for (; f < features.end; ++f)
    for (int s = 0; s < L; ++s)
      tile[(f - begin) * Stride + s] = s < x.samples ? widen(x.data[s * x.features + f]) : T(0);
}

// y[s, first_row + g] = sums[g * L + s] for g < count and every sample s.
//   sums  (count, L); y does not alias it, y.samples <= L
// Cost: O(count * samples).
template <class T, int L, int Bytes, class Y>
TTS_INLINE void write_rows(const T* sums, int64_t count, Activations<Y> y, int64_t first_row) {
  Y* out = y.data + first_row;
  constexpr int W = Lanes<T, L, Bytes>::width;
  using V = typename Lanes<T, L, Bytes>::V;
  int64_t g = 0;
  if constexpr (W >= 4) {
    const int64_t last = count / W * W;
    for (int first = 0; first < y.samples; first += W) {
      for (g = 0; g < last; g += W) {
        V block[W];
        for (int i = 0; i < W; ++i) block[i] = load<V>(sums + (g + i) * L + first);
        transpose_block<W / 2>(block);
        for (int i = 0; i < W; ++i)
          if (first + i < y.samples)
            store_narrowed<T, W>(out + (first + i) * y.features + g, block[i]);
      }
    }
  }
  for (; g < count; ++g)
    for (int64_t s = 0; s < y.samples; ++s) narrow(sums[g * L + s], out[s * y.features + g]);
}

// fill_tile for some features of a tile of all features.
template <class X, class T, int L>
struct FillTile {
  template <int Bytes>
  static TTS_INLINE bool apply(Activations<const X> x, Range features, T* tile) {
    fill_tile<T, L, Bytes>(x, features, tile + features.begin * L);
    return true;
  }
};

// FillTile for a tile (features, 2 L) that has room for sums beside the samples; the sums are set
// to zero.
template <class X, class T, int L>
struct FillTileBesideSums {
  template <int Bytes>
  static TTS_INLINE bool apply(Activations<const X> x, Range features, T* tile) {
    fill_tile<T, L, Bytes, 2 * L>(x, features, tile + features.begin * 2 * L);
    for (int64_t f = features.begin; f < features.end; ++f)
      for (int s = 0; s < L; ++s) tile[f * 2 * L + L + s] = T(0);
    return true;
  }
};

// out[f] (+)= sum over s of tile[f, s] for every f in `features`, in a fixed order of s.
//   tile (all features, L), lanes without a sample are zero; out (all features), no alias
// Cost: O(features * L).
template <class T, int L>
struct SumTile {
  template <int Bytes>
  static TTS_INLINE bool apply(const T* tile, Range features, bool accumulate, T* out) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int W = Lanes<T, L, Bytes>::width, count = Lanes<T, L, Bytes>::count;
    const auto sum_of = [&](int64_t f) __attribute__((always_inline)) {
      V sum = load<V>(tile + f * L);
      for (int v = 1; v < count; ++v) sum += load<V>(tile + f * L + v * W);
      return sum;
    };
    int64_t f = features.begin;
    for (; f + W <= features.end; f += W) {
      V sums =
          sum_lanes<W, 1, 0>([&](auto j) __attribute__((always_inline)) { return sum_of(f + j); });
      if (accumulate) sums += load<V>(out + f);
      store(out + f, sums);
    }
    for (; f < features.end; ++f) {  // the same tree of additions, of which one lane is used
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
