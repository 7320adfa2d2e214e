// The values of a matrix in the order by columns.
#pragma once

#include <cstdint>

#include "bounds.h"
#include "views.h"

namespace tts {

// out[k] = w.values[order.permutation[k]] for every k in `nonzeros`.
//   out (nnz), does not alias w.
// Returns false if an entry of the permutation was out of range. Cost: O(nonzeros).
template <class T, class I>
bool gather(const CsrView<T, I>& w, const ColumnOrder<I>& order, Range nonzeros, T* out) {
  bool in_range = true;
  for (int64_t k = nonzeros.begin; k < nonzeros.end; ++k)
    out[k] = w.values[clamp_index(order.permutation[k], w.nnz, in_range)];
  return in_range;
}

}  // namespace tts
