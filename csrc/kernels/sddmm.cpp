#include "sddmm.h"

#include "compiled.h"
#include "denormals.h"
#include "tile.h"

namespace tts::compiled {

template <class T, class I>
bool sddmm_rows(Isa isa, int64_t samples, Range rows, const CsrView<T, I>& w, const T* dy,
                const T* x, bool accumulate, T* dw) {
  const DenormalsAreZero quick;
  return for_tile_width<T>(samples, [&](auto L) {
    return run<SddmmRows<T, I, L, 1>>(isa, rows, w, Tiles<T>{dy, 0}, Tiles<T>{x, 0}, accumulate,
                                      dw);
  });
}

template <class T, class I>
bool sddmm_rows_of_pair(Isa isa, Range rows, const CsrView<T, I>& w, const Tiles<T>& dy,
                        const Tiles<T>& x, bool accumulate, T* dw) {
  const DenormalsAreZero quick;
  return run<SddmmRows<T, I, widest_tile<T>, 2>>(isa, rows, w, dy, x, accumulate, dw);
}

#define TTS_COMPILE(T, I)                                                                       \
  template bool sddmm_rows(Isa, int64_t, Range, const CsrView<T, I>&, const T*, const T*, bool, \
                           T*);                                                                 \
  template bool sddmm_rows_of_pair(Isa, Range, const CsrView<T, I>&, const Tiles<T>&,           \
                                   const Tiles<T>&, bool, T*);
TTS_FOR_MATRICES(TTS_COMPILE)

}  // namespace tts::compiled
