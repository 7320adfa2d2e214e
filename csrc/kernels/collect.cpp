#include "collect.h"

#include "compiled.h"
#include "denormals.h"

namespace tts::compiled {

template <class X, class T>
void collect_columns(Isa isa, Range columns, const PartialSums<T>& sums, bool beside,
                     const Activations<X>& dx) {
  const DenormalsAreZero quick;
  for_tile_width<T>(dx.samples, [&](auto L) {
    if (beside) return run<CollectColumns<T, X, L, 2 * L>>(isa, columns, sums, dx);
    return run<CollectColumns<T, X, L>>(isa, columns, sums, dx);
  });
}

#define TTS_COMPILE(X, T) \
  template void collect_columns(Isa, Range, const PartialSums<T>&, bool, const Activations<X>&);
TTS_FOR_ACTIVATIONS(TTS_COMPILE)

}  // namespace tts::compiled
