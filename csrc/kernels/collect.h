// Adds up the sums that several parts of the rows have scattered, each into sums of its own.
#pragma once

#include <cstdint>

#include "simd.h"
#include "spmm.h"
#include "tile.h"
#include "views.h"

namespace tts {

// The sums of `parts` scatters; those of each part begin `step` values after those of the last one.
template <class T>
struct PartialSums {
  const T* data;
  int64_t parts, step;
};

// dx[s, c] = sum over p of sums.data[p * sums.step + c * Stride + s] for every c in `columns`,
// added in the order of p; dx is written row-major.
//   sums.step >= dx.features * Stride; dx does not alias sums
// Cost: O(columns * parts * L).
template <class T, class X, int L, int Stride = L>
struct CollectColumns {
  template <int Bytes>
  static TTS_INLINE bool apply(Range columns, PartialSums<T> sums, Activations<X> dx) {
    alignas(64) T group[row_group * L];
    for (int64_t c = columns.begin; c < columns.end; c += row_group) {
      const int64_t grouped = columns.end - c < row_group ? columns.end - c : row_group;
      for (int64_t g = 0; g < grouped; ++g)
        for (int s = 0; s < L; ++s) {
          const T* from = sums.data + (c + g) * Stride + s;
          T sum = from[0];
          for (int64_t p = 1; p < sums.parts; ++p) sum += from[p * sums.step];
          group[g * L + s] = sum;
        }
      write_rows<T, L, Bytes>(group, grouped, dx, c);
    }
    return true;
  }
};

}  // namespace tts
