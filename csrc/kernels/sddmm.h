// Sampled dense-dense product: the gradient of the nonzero weights alone.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"
#include "views.h"
#include "window.h"

namespace tts {

// Several tiles; each begins `step` values after the one before.
template <class T>
struct Tiles {
  const T* first;
  int64_t step;
};

// out[i] (+)= sum over s of dy[s, rows[i]] * x[s, columns[i]] for the `count` nonzeros of a window.
//   dy    Count tiles (rows, L) with their samples side by side (tile.h)
//   x     Count tiles (columns, Stride >= L)
//   out   (count); added to if `accumulate`, otherwise overwritten; nothing aliases it
// W nonzeros are processed at a time: their W vectors of products are summed over the lanes in one
// tree of W - 1 additions. With two tiles to a tree, the tree takes half as much of the work. Every
// entry is summed in the same order, wherever it stands. Cost: O(count * L * Count).
template <class T, class I, int L, int Stride, int Count, int Bytes, int W>
TTS_INLINE void sddmm_window(const NonzeroWindow<I, W>& window, int64_t count, Tiles<T> dy,
                             Tiles<T> x, bool accumulate, T* out) {
  using V = typename Lanes<T, L, Bytes>::V;
  constexpr int vectors = Lanes<T, L, Bytes>::count;
  static_assert(W == Lanes<T, L, Bytes>::width);
  for (int64_t i = 0; i < count; i += W) {
    V sums;
    // The sums of both branches start from zero: in a sum of two bare products, the compiler may
    // fuse either multiplication with the addition, and the two branches would round differently.
    // The barriers keep the loads inside the branches: hoisted above them, 2 W vectors would be
    // spilled to the stack.
    if (W >= 8 && window.rows[i] == window.rows[i + W - 1]) {
      asm volatile("" ::: "memory");
      V held[Count][vectors];
      for (int t = 0; t < Count; ++t)
        for (int v = 0; v < vectors; ++v)
          held[t][v] = load<V>(dy.first + t * dy.step + window.rows[i] * L + v * W);
      sums = sum_lanes<W, 1, 0>([&](auto j) __attribute__((always_inline)) {
        const T* from = x.first + static_cast<int64_t>(window.columns[i + j]) * Stride;
        V sum{};
        for (int t = 0; t < Count; ++t)
          for (int v = 0; v < vectors; ++v) sum += held[t][v] * load<V>(from + t * x.step + v * W);
        return sum;
      });
    } else {
      asm volatile("" ::: "memory");
      sums = sum_lanes<W, 1, 0>([&](auto j) __attribute__((always_inline)) {
        const T* gradient = dy.first + window.rows[i + j] * L;
        const T* from = x.first + static_cast<int64_t>(window.columns[i + j]) * Stride;
        V sum{};
        for (int t = 0; t < Count; ++t)
          for (int v = 0; v < vectors; ++v)
            sum += load<V>(gradient + t * dy.step + v * W) * load<V>(from + t * x.step + v * W);
        return sum;
      });
    }
    if (i + W <= count) {
      if (accumulate) sums += load<V>(out + i);
      store(out + i, sums);
    } else {
      T lanes[W];
      store(lanes, sums);
      for (int64_t j = 0; i + j < count; ++j)
        out[i + j] = accumulate ? out[i + j] + lanes[j] : lanes[j];
    }
  }
}

// out[k] (+)= sum over s of dy[s, r] * x[s, w.col[k]], for every k in every row r of `rows` and
// Count tiles of L samples; out is added to if `accumulate`, otherwise overwritten.
//   w     whose values are not read
//   dy, x tiles (w.rows, L) and (w.columns, L) (tile.h)
//   out   (nnz); nothing aliases it
// Returns false if an index was out of range (out is then meaningless).
// Cost: O(nnz of the rows * L * Count).
template <class T, class I, int L, int Count>
struct SddmmRows {
  template <int Bytes>
  static TTS_INLINE bool apply(Range rows, CsrView<T, I> w, Tiles<T> dy, Tiles<T> x,
                               bool accumulate, T* out) {
    if (rows.begin >= rows.end) return true;
    NonzeroWindow<I, Lanes<T, L, Bytes>::width> window;
    bool in_range = true;
    const Range all = nonzeros_of(w, rows, in_range);
    int64_t row = rows.begin;
    for (int64_t from = all.begin; from < all.end; from += window.most) {
      const int64_t count = all.end - from < window.most ? all.end - from : window.most;
      window.read(w, from, count, row, rows.end, in_range);
      prefetch_stream(w.col + from + window.most + stream_ahead, window.most);
      prefetch_stream(out + from + window.most + stream_ahead, window.most);
      sddmm_window<T, I, L, L, Count, Bytes>(window, count, dy, x, accumulate, out + from);
    }
    return in_range;
  }
};

}  // namespace tts
