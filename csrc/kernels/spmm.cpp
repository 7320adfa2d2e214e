#include "spmm.h"

#include "compiled.h"
#include "denormals.h"

namespace tts::compiled {

template <class X, class T, class I>
bool spmm_rows(Isa isa, Range rows, const CsrView<T, I>& w, const T* bias, const T* tile,
               const Activations<X>& y) {
  const DenormalsAreZero quick;
  return for_tile_width<T>(y.samples, [&](auto L) {
    return run<SpmmRows<CsrReader<T, I>, T, X, L>>(isa, rows, w, bias, tile, y);
  });
}

#define TTS_COMPILE(X, T, I)                                                    \
  template bool spmm_rows(Isa, Range, const CsrView<T, I>&, const T*, const T*, \
                          const Activations<X>&);
TTS_FOR_PRODUCTS(TTS_COMPILE)

}  // namespace tts::compiled
