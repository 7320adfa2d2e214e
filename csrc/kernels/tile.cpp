#include "tile.h"

#include "compiled.h"
#include "denormals.h"

namespace tts::compiled {

template <class X, class T>
void fill_tile(Isa isa, const Activations<const X>& x, Range features, T* tile) {
  for_tile_width<T>(x.samples,
                    [&](auto L) { return run<FillTile<X, T, L>>(isa, x, features, tile); });
}

template <class X, class T>
void fill_tile_beside_sums(Isa isa, const Activations<const X>& x, Range features, T* tile) {
  for_tile_width<T>(
      x.samples, [&](auto L) { return run<FillTileBesideSums<X, T, L>>(isa, x, features, tile); });
}

template <class T>
void sum_tile(Isa isa, int64_t samples, const T* tile, Range features, bool accumulate, T* out) {
  const DenormalsAreZero quick;
  for_tile_width<T>(
      samples, [&](auto L) { return run<SumTile<T, L>>(isa, tile, features, accumulate, out); });
}

#define TTS_COMPILE(X, T)                                               \
  template void fill_tile(Isa, const Activations<const X>&, Range, T*); \
  template void fill_tile_beside_sums(Isa, const Activations<const X>&, Range, T*);
TTS_FOR_ACTIVATIONS(TTS_COMPILE)

template void sum_tile(Isa, int64_t, const float*, Range, bool, float*);
template void sum_tile(Isa, int64_t, const double*, Range, bool, double*);

}  // namespace tts::compiled
