// The gradient of the nonzero weights and the input gradient in one pass, for few samples.
#pragma once

#include <cstdint>
#include <utility>

#include "bounds.h"
#include "sddmm.h"
#include "simd.h"
#include "views.h"
#include "window.h"

namespace tts {

// Computes the gradient of the nonzeros (sddmm.h) and scatters the input gradient (scatter.h) in
// one pass over the nonzeros. The activations of a column and the sums of its gradient lie side by
// side, for small L on one cache line, so that the scatter finds the sums in L1 after the product
// has loaded the activations.
//   dy           tile (w.rows, L)
//   columns_tile (w.columns, 2 L): x with its samples side by side, then the sums, zeroed by the
//                caller: columns_tile[c, L + s] += w.values[k] * dy[s, r] for every k at (r, c)
// Everything else is as in SddmmRows. Each sum is computed in the order of the nonzeros.
template <class T, class I, int L>
struct SddmmScatterRows {
  template <int Bytes>
  static TTS_INLINE bool apply(Range rows, CsrView<T, I> w, const T* dy, T* columns_tile,
                               bool accumulate, T* out) {
    using V = typename Lanes<T, L, Bytes>::V;
    constexpr int W = Lanes<T, L, Bytes>::width, vectors = Lanes<T, L, Bytes>::count;
    if (rows.begin >= rows.end) return true;
    NonzeroWindow<I, W> window;
    bool in_range = true;
    const Range all = nonzeros_of(w, rows, in_range);
    int64_t row = rows.begin;
    for (int64_t from = all.begin; from < all.end; from += window.most) {
      const int64_t count = all.end - from < window.most ? all.end - from : window.most;
      window.read(w, from, count, row, rows.end, in_range);
      prefetch_stream(w.col + from + window.most + stream_ahead, window.most);
      prefetch_stream(w.values + from + window.most + stream_ahead, window.most);
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
            const auto weights =
                repeat_pairs(load<H>(w.values + from + i), std::make_index_sequence<N>{});
            store(products, Vector<T, N>(gradient * weights));
            for (int j = 0; j < pairs; ++j) {
              T* sum = columns_tile + static_cast<int64_t>(window.columns[i + j]) * 4 + 2;
              store(sum, V(load<V>(sum) + load<V>(products + 2 * j)));
            }
          } else {
            for (int64_t j = 0; i + j < count; ++j) {
              out[from + i + j] = accumulate ? out[from + i + j] + sums[j] : sums[j];
              T* sum = columns_tile + static_cast<int64_t>(window.columns[i + j]) * 4 + 2;
              const V gradient_j = load<V>(dy + window.rows[i + j] * 2);
              store(sum, V(load<V>(sum) + w.values[from + i + j] * gradient_j));
            }
          }
        }
        continue;
      }
      sddmm_window<T, I, L, 2 * L, 1, Bytes>(window, count, {dy, 0}, {columns_tile, 0}, accumulate,
                                             out + from);
      const auto add = [&](int64_t i) __attribute__((always_inline)) {
        T* sum = columns_tile + static_cast<int64_t>(window.columns[i]) * 2 * L + L;
        const T* gradient = dy + window.rows[i] * L;
        for (int v = 0; v < vectors; ++v)
          store(sum + v * W,
                V(load<V>(sum + v * W) + w.values[from + i] * load<V>(gradient + v * W)));
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
