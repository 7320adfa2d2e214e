#include "spmm.h"

#include "compiled.h"
#include "denormals.h"

namespace tts::compiled {

template <class X>
bool spmm_packed_rows(Isa isa, Range rows, const PackedView& w, const float* bias,
                      const float* tile, const Activations<X>& y) {
  const DenormalsAreZero quick;
  return for_tile_width<float>(y.samples, [&](auto L) {
    return w.columns > plain_codes
               ? run<SpmmRows<GapReader, float, X, L>>(isa, rows, w, bias, tile, y)
               : run<SpmmRows<PackedReader, float, X, L>>(isa, rows, w, bias, tile, y);
  });
}

template bool spmm_packed_rows(Isa, Range, const PackedView&, const float*, const float*,
                               const Activations<float>&);
template bool spmm_packed_rows(Isa, Range, const PackedView&, const float*, const float*,
                               const Activations<BFloat16>&);
template bool spmm_packed_rows(Isa, Range, const PackedView&, const float*, const float*,
                               const Activations<Float16>&);

}  // namespace tts::compiled
