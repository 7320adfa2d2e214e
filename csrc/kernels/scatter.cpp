#include "scatter.h"

#include "compiled.h"
#include "denormals.h"

namespace tts::compiled {

template <class X, class T, class I>
bool scatter_rows(Isa isa, Range rows, const CsrView<T, I>& w, const Activations<const X>& dy,
                  T* sums) {
  const DenormalsAreZero quick;
  return for_tile_width<T>(
      dy.samples, [&](auto L) { return run<ScatterRows<T, I, X, L>>(isa, rows, w, dy, sums); });
}

#define TTS_COMPILE(X, T, I) \
  template bool scatter_rows(Isa, Range, const CsrView<T, I>&, const Activations<const X>&, T*);
TTS_FOR_PRODUCTS(TTS_COMPILE)

}  // namespace tts::compiled
