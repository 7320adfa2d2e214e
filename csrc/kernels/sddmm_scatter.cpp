#include "sddmm_scatter.h"

#include "compiled.h"
#include "denormals.h"
#include "tile.h"

namespace tts::compiled {

template <class T, class I>
bool sddmm_scatter_rows(Isa isa, int64_t samples, Range rows, const CsrView<T, I>& w, const T* dy,
                        T* columns_tile, bool accumulate, T* dw) {
  const DenormalsAreZero quick;
  return for_tile_width<T>(samples, [&](auto L) {
    return run<SddmmScatterRows<T, I, L>>(isa, rows, w, dy, columns_tile, accumulate, dw);
  });
}

#define TTS_COMPILE(T, I)                                                                         \
  template bool sddmm_scatter_rows(Isa, int64_t, Range, const CsrView<T, I>&, const T*, T*, bool, \
                                   T*);
TTS_FOR_MATRICES(TTS_COMPILE)

}  // namespace tts::compiled
