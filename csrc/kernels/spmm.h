// Sparse times dense: the forward product, and the input gradient in the order by columns.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "bounds.h"
#include "readers.h"
#include "simd.h"
#include "tile.h"
#include "views.h"

namespace tts {

// Number of rows whose sums are written together, transposed.
constexpr int row_group = 16;

// A row is summed in segments of this many nonzeros, which are added up afterwards: the rounding
// error of n terms grows as row_segment + n / row_segment does, not as n. Segments begin at
// multiples of their size, as windows do.
constexpr int row_segment = 2048;

// The sums of one row over a tile of L samples: one multiply-add for each nonzero and vector of
// samples. Several independent sums hide the latency of a multiply-add; 8 vectors in flight fill
// its pipeline.
template <class T, int L, int Bytes>
struct SumsOfSamples {
  using V = typename Lanes<T, L, Bytes>::V;
  static constexpr int width = Lanes<T, L, Bytes>::width, count = Lanes<T, L, Bytes>::count;
  static constexpr int chains = count >= 8 ? 1 : count >= 4 ? 2 : 4;

  V sums[chains][count] = {};

  // Adds value * tile[column, :] for every nonzero.
  template <class I>
  TTS_INLINE void add(Nonzeros<T, I> w, const T* tile) {
    int64_t k = 0;
    for (; k + chains <= w.count; k += chains) {
      for (int c = 0; c < chains; ++c) {
        const T* x = tile + static_cast<int64_t>(w.columns[k + c]) * L;
        for (int v = 0; v < count; ++v) sums[c][v] += w.values[k + c] * load<V>(x + v * width);
      }
    }
    for (; k < w.count; ++k) {
      const T* x = tile + static_cast<int64_t>(w.columns[k]) * L;
      for (int v = 0; v < count; ++v) sums[0][v] += w.values[k] * load<V>(x + v * width);
    }
  }

  // total[s] = the sum of sample s + offset, or total[s] += the sum.
  TTS_INLINE void write(T* total, bool add_to_total, T offset) const {
    for (int v = 0; v < count; ++v) {
      V sum = sums[0][v];
      if constexpr (chains == 2) sum += sums[1][v];
      if constexpr (chains == 4) sum = (sum + sums[1][v]) + (sums[2][v] + sums[3][v]);
      T* to = total + v * width;
      store(to, add_to_total ? V(sum + load<V>(to)) : V(sum + offset));
    }
  }
};

// The same for tiles of few samples: a vector holds several nonzeros, the samples of each side by
// side (1 sample, 1000 x 1000, density .1: 0.45 ns a nonzero; one nonzero at a time: 0.8 to 1.0).
// Vectors of 32 bytes: putting together wider ones costs more than they save (0.58 ns).
constexpr int packed_bytes(int bytes) { return bytes < 32 ? bytes : 32; }

template <class T, int L, int Bytes>
struct SumsOfPackedSamples {
  static constexpr int width = packed_bytes(Bytes) / static_cast<int>(sizeof(T));
  static constexpr int at_once = width / L, chains = 2;  // nonzeros in a vector; sums in flight
  using V = Vector<T, width>;

  V sums[chains] = {};
  T rest[L] = {};  // of the nonzeros that fill no vector

  template <class I>
  TTS_INLINE void add(Nonzeros<T, I> w, const T* tile) {
    const auto products = [&](int64_t k) __attribute__((always_inline)) {
      return repeated(load<Vector<T, at_once>>(w.values + k)) * gathered(w.columns + k, tile);
    };
    int64_t k = 0;
    for (; k + chains * at_once <= w.count; k += chains * at_once)
      for (int c = 0; c < chains; ++c) sums[c] += products(k + c * at_once);
    for (; k + at_once <= w.count; k += at_once) sums[0] += products(k);
    for (; k < w.count; ++k)
      for (int s = 0; s < L; ++s)
        rest[s] += w.values[k] * tile[static_cast<int64_t>(w.columns[k]) * L + s];
  }

  TTS_INLINE void write(T* total, bool add_to_total, T offset) const {
    T lanes[L];
    store(lanes, fold_lanes<L>(V(sums[0] + sums[1])));
    for (int s = 0; s < L; ++s)
      total[s] = (lanes[s] + rest[s]) + (add_to_total ? total[s] : offset);
  }

 private:
  // The samples of `at_once` features, side by side.
  template <class I>
  static TTS_INLINE V gathered(const I* column, const T* tile) {
    if constexpr (L == 1) {
      V samples;
      for (int i = 0; i < width; ++i) samples[i] = tile[column[i]];
      return samples;
    } else {
      return pack<width, L, 0>([&](auto i) __attribute__((always_inline)) {
        return load<Vector<T, L>>(tile + static_cast<int64_t>(column[i]) * L);
      });
    }
  }
  // Each value once for each sample.
  static TTS_INLINE V repeated(const Vector<T, at_once>& values) {
    if constexpr (L == 1)
      return values;
    else
      return repeat_pairs(values, std::make_index_sequence<width>{});
  }
};

// y[s, r] = bias[r] + sum over the nonzeros of row r of value * x[s, column]
// for every r in `rows` and one tile of L samples.
//   bias (w.rows) or null
//   tile (w.columns, L): x with its samples side by side (tile.h)
//   y    (samples <= L, w.rows); every entry of the given rows is written
// Nothing aliases y. Returns false if an index was out of range (y is then meaningless).
// The sum of a row is computed by one call, in an order that depends on the row's place in crow and
// on L alone.
// Cost: O(nnz of the rows * L).
template <class Reader, class T, class Y, int L>
struct SpmmRows {
  template <int Bytes>
  static TTS_INLINE bool apply(Range rows, typename Reader::View w, const T* bias, const T* tile,
                               Activations<Y> y) {
    // With two nonzeros in a vector there is nothing to gain (4 samples: 0.56 and 0.52 ns).
    constexpr bool packed = L <= 2 && 4 * L * static_cast<int>(sizeof(T)) <= packed_bytes(Bytes);
    using Sums =
        std::conditional_t<packed, SumsOfPackedSamples<T, L, Bytes>, SumsOfSamples<T, L, Bytes>>;
    alignas(64) T group[row_group * L];
    Reader reader(w);
    bool in_range = true;
    for (int64_t first = rows.begin; first < rows.end; first += row_group) {
      const int64_t grouped = rows.end - first < row_group ? rows.end - first : row_group;
      for (int64_t g = 0; g < grouped; ++g) {
        const Range range = nonzeros_of(w, first + g, in_range);
        const T offset = bias ? bias[first + g] : T(0);
        T* total = group + g * L;
        int64_t begin = range.begin;
        reader.begin_row();
        do {
          const int64_t next = (begin / row_segment + 1) * row_segment;
          const int64_t end = range.end < next ? range.end : next;
          Sums sums;
          for (int64_t k = begin; k < end;) sums.add(reader.next(k, end, in_range), tile);
          sums.write(total, begin != range.begin, Reader::scaled ? T(0) : offset);
          begin = end;
        } while (begin < range.end);
        if constexpr (Reader::scaled) {
          const T scale = w.scales ? w.scales[first + g] : T(1);
          for (int s = 0; s < L; ++s) total[s] = total[s] * scale + offset;
        }
      }
      write_rows<T, L, Bytes>(group, grouped, y, first);
    }
    return in_range;
  }
};

}  // namespace tts
