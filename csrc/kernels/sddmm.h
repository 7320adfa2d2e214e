// Sampled dense-dense product: the gradient of the nonzero weights, and of nothing else.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "simd.h"
#include "tile.h"
#include "window.h"

namespace tts {

// out[i] (+)= sum over s of dy[s, rows[i]] * x[s, columns[i]] for the `count` nonzeros of a window.
//   dy    Tiles tiles (rows, L), dy_step apart, with their samples side by side (tile.h)
//   x     Tiles tiles (columns, Stride >= L), x_step apart
//   out   (count); `accumulate` adds to it, otherwise it is set; nothing aliases it
// Nonzeros are taken W at a time: W vectors of products, summed over their lanes in one tree of
// W - 1 additions. Two tiles to a tree halve its share of the work. Each entry is summed in the
// same order wherever it stands. Cost: O(count L Tiles).
template <class T, class I, int L, int Stride, int Tiles, int Bytes, int W>
TTS_INLINE void sddmm_window(const NonzeroWindow<I, W>& window, int64_t count, const T* dy,
                             int64_t dy_step, const T* x, int64_t x_step, bool accumulate,
                             T* out) {
  using V = typename Lanes<T, L, Bytes>::V;
  constexpr int vectors = Lanes<T, L, Bytes>::count;
  static_assert(W == Lanes<T, L, Bytes>::width);
  for (int64_t i = 0; i < count; i += W) {
    V sums;
    // Both forms start from zero: with a bare product first, the compiler may fuse either
    // multiplication with the addition, and they would round differently. The barriers keep the
    // loads behind the branch: hoisted above it, 2 W vectors would be spilled to the stack.
    if (W >= 8 && window.rows[i] == window.rows[i + W - 1]) {
      asm volatile("" ::: "memory");
      V held[Tiles][vectors];
      for (int t = 0; t < Tiles; ++t)
        for (int v = 0; v < vectors; ++v)
          held[t][v] = load<V>(dy + t * dy_step + window.rows[i] * L + v * W);
      sums = sum_lanes<W, 1, 0>([&](auto j) __attribute__((always_inline)) {
        const T* from = x + static_cast<int64_t>(window.columns[i + j]) * Stride;
        V sum{};
        for (int t = 0; t < Tiles; ++t)
          for (int v = 0; v < vectors; ++v)
            sum += held[t][v] * load<V>(from + t * x_step + v * W);
        return sum;
      });
    } else {
      asm volatile("" ::: "memory");
      sums = sum_lanes<W, 1, 0>([&](auto j) __attribute__((always_inline)) {
        const T* gradient = dy + window.rows[i + j] * L;
        const T* from = x + static_cast<int64_t>(window.columns[i + j]) * Stride;
        V sum{};
        for (int t = 0; t < Tiles; ++t)
          for (int v = 0; v < vectors; ++v)
            sum += load<V>(gradient + t * dy_step + v * W) * load<V>(from + t * x_step + v * W);
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

// out[k] (+)= sum over s of dy[s, r] * x[s, col[k]], for every k in the rows r in
// [row_begin, row_end) and Tiles tiles of L samples; `accumulate` adds to out, otherwise it is set.
//   crow  (rows + 1) row pointers; col (nnz), to lie in [0, columns)
//   dy, x tiles (rows, L) and (columns, L), each as far apart as its step (tile.h)
//   out   (nnz); nothing aliases it
// Returns false if an index was out of range (out is then meaningless).
// Cost: O(nnz of the rows * L * Tiles).
template <class T, class I, int L, int Tiles>
struct SddmmRows {
  template <int Bytes>
  static TTS_INLINE bool apply(int64_t row_begin, int64_t row_end, const int64_t* crow,
                               const I* col, int64_t nnz, int64_t columns, const T* dy,
                               int64_t dy_step, const T* x, int64_t x_step, bool accumulate,
                               T* out) {
    if (row_begin >= row_end) return true;
    NonzeroWindow<I, Lanes<T, L, Bytes>::width> window;
    bool in_range = true;
    const RowRange all = row_range(crow, row_begin, row_end, nnz, in_range);
    int64_t row = row_begin;
    for (int64_t from = all.begin; from < all.end; from += window.most) {
      const int64_t count = all.end - from < window.most ? all.end - from : window.most;
      window.read(crow, col, from, count, columns, row, row_end, in_range);
      prefetch_stream(col + from + window.most + stream_ahead, window.most);
      prefetch_stream(out + from + window.most + stream_ahead, window.most);
      sddmm_window<T, I, L, L, Tiles, Bytes>(window, count, dy, dy_step, x, x_step, accumulate,
                                             out + from);
    }
    return in_range;
  }
};

// The gradient of the nonzeros and a scatter of the input gradient (scatter.h) in one pass over
// the nonzeros. A column's activations and the sums of its gradient lie side by side, on one cache
// line for small L, so that the scatter finds in L1 what the product has just loaded.
//   columns_tile (columns, 2 L): x with its samples side by side, then the sums, zeroed by the
//                caller: columns_tile[c, L + s] += values[k] * dy[s, r] for every k at (r, c)
//   dy           tile (rows, L)
// Everything else as above. Each sum is made in the order of the nonzeros.
template <class T, class I, int L>
struct SddmmScatterRows {
  template <int Bytes>
  static TTS_INLINE bool apply(int64_t row_begin, int64_t row_end, const int64_t* crow,
                               const I* col, const T* values, int64_t nnz, int64_t columns,
                               const T* dy, T* columns_tile, bool accumulate, T* out) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int W = Lanes<T, L, Bytes>::width, vectors = Lanes<T, L, Bytes>::count;
    if (row_begin >= row_end) return true;
    NonzeroWindow<I, W> window;
    bool in_range = true;
    const RowRange all = row_range(crow, row_begin, row_end, nnz, in_range);
    int64_t row = row_begin;
    for (int64_t from = all.begin; from < all.end; from += window.most) {
      const int64_t count = all.end - from < window.most ? all.end - from : window.most;
      window.read(crow, col, from, count, columns, row, row_end, in_range);
      prefetch_stream(col + from + window.most + stream_ahead, window.most);
      prefetch_stream(values + from + window.most + stream_ahead, window.most);
      prefetch_stream(out + from + window.most + stream_ahead, window.most);
      if constexpr (L == 2 && Bytes / sizeof(T) >= 4) {
        constexpr int N = Bytes / static_cast<int>(sizeof(T)), pairs = N / 2;
        using Index = std::make_index_sequence<pairs>;
        for (int64_t i = 0; i < count; i += pairs) {
          const auto gradient = pack<N, 2, 0>([&](auto j) __attribute__((always_inline)) {
            return load<V>(dy + window.rows[i + j] * 2);
          });
          const auto input = pack<N, 2, 0>([&](auto j) __attribute__((always_inline)) {
            return load<V>(columns_tile + static_cast<int64_t>(window.columns[i + j]) * 4);
          });
          const auto sums = sum_pairs(Vector<T, N>(gradient * input), Index{});
          if (i + pairs <= count) {
            using H = Vector<T, pairs>;
            H total = sums;
            if (accumulate) total += load<H>(out + from + i);
            store(out + from + i, total);
            T products[N];
            store(products, Vector<T, N>(gradient * repeat_pairs(load<H>(values + from + i), std::make_index_sequence<N>{})));
            for (int j = 0; j < pairs; ++j) {
              T* sum = columns_tile + static_cast<int64_t>(window.columns[i + j]) * 4 + 2;
              store(sum, V(load<V>(sum) + load<V>(products + 2 * j)));
            }
          } else {
            for (int64_t j = 0; i + j < count; ++j) {
              out[from + i + j] = accumulate ? out[from + i + j] + sums[j] : sums[j];
              T* sum = columns_tile + static_cast<int64_t>(window.columns[i + j]) * 4 + 2;
              store(sum, V(load<V>(sum) + values[from + i + j] * load<V>(dy + window.rows[i + j] * 2)));
            }
          }
        }
        continue;
      }
      sddmm_window<T, I, L, 2 * L, 1, Bytes>(window, count, dy, 0, columns_tile, 0, accumulate,
                                             out + from);
      const auto add = [&](int64_t i) __attribute__((always_inline)) {
        T* sum = columns_tile + static_cast<int64_t>(window.columns[i]) * 2 * L + L;
        const T* gradient = dy + window.rows[i] * L;
        for (int v = 0; v < vectors; ++v)
          store(sum + v * W,
                V(load<V>(sum + v * W) + values[from + i] * load<V>(gradient + v * W)));
      };
      int64_t i = 0;
      for (; i + 4 <= count; i += 4)
        for (int j = 0; j < 4; ++j) add(i + j);
      for (; i < count; ++i) add(i);
    }
    return in_range;
  }
};

}  // namespace tts
