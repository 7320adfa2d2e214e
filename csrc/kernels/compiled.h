// The compiled kernels of the products: each function picks the width of the tile from the number
// of samples, and runs the kernel that was compiled for the instruction set.
//
// These functions are compiled for every type that an operator takes. They make up nearly all of
// the library, so each kernel has a file of its own (spmm.cpp, sddmm.cpp, ...), and the files are
// compiled in parallel. The contract of a function is that of the kernel named above it, with
// denormal numbers taken for zeros where it multiplies or adds (denormals.h).
#pragma once

#include <cstdint>

#include "collect.h"
#include "half.h"
#include "sddmm.h"
#include "simd.h"
#include "views.h"

// Calls M(X, T) for activations stored as X and summed in T, for every X.
#define TTS_FOR_ACTIVATIONS(M) \
  M(float, float) M(double, double) M(BFloat16, float) M(Float16, float)

// Calls M(T, I) for matrices of values T and indices I.
#define TTS_FOR_MATRICES(M) \
  M(float, int32_t) M(float, int64_t) M(double, int32_t) M(double, int64_t)

// Calls M(X, T, I) for activations and the matrices that go with them.
// clang-format off
#define TTS_FOR_PRODUCTS(M)                               \
  M(float, float, int32_t) M(float, float, int64_t)       \
  M(double, double, int32_t) M(double, double, int64_t)   \
  M(BFloat16, float, int32_t) M(BFloat16, float, int64_t) \
  M(Float16, float, int32_t) M(Float16, float, int64_t)
// clang-format on

namespace tts::compiled {

// SpmmRows: y = x W^T + bias in the given rows of W.
template <class X, class T, class I>
bool spmm_rows(Isa isa, Range rows, const CsrView<T, I>& w, const T* bias, const T* tile,
               const Activations<X>& y);

// The same for a packed matrix.
template <class X>
bool spmm_packed_rows(Isa isa, Range rows, const PackedView& w, const float* bias,
                      const float* tile, const Activations<X>& y);

// ScatterRows: sums += dy W in the given rows of W.
template <class X, class T, class I>
bool scatter_rows(Isa isa, Range rows, const CsrView<T, I>& w, const Activations<const X>& dy,
                  T* sums);

// CollectColumns: dx = the sum of the sums of several scatters. `beside`: the sums lie beside the
// samples of a tile, as SddmmScatterRows leaves them.
template <class X, class T>
void collect_columns(Isa isa, Range columns, const PartialSums<T>& sums, bool beside,
                     const Activations<X>& dx);

// SddmmRows: dw (+)= dy^T x at the nonzeros of the given rows, from one tile of `samples`.
template <class T, class I>
bool sddmm_rows(Isa isa, int64_t samples, Range rows, const CsrView<T, I>& w, const T* dy,
                const T* x, bool accumulate, T* dw);

// SddmmRows from two tiles of the widest width.
template <class T, class I>
bool sddmm_rows_of_pair(Isa isa, Range rows, const CsrView<T, I>& w, const Tiles<T>& dy,
                        const Tiles<T>& x, bool accumulate, T* dw);

// SddmmScatterRows: sddmm_rows and scatter_rows in one pass.
template <class T, class I>
bool sddmm_scatter_rows(Isa isa, int64_t samples, Range rows, const CsrView<T, I>& w, const T* dy,
                        T* columns_tile, bool accumulate, T* dw);

// FillTile, and FillTileBesideSums: x transposed into a tile.
template <class X, class T>
void fill_tile(Isa isa, const Activations<const X>& x, Range features, T* tile);
template <class X, class T>
void fill_tile_beside_sums(Isa isa, const Activations<const X>& x, Range features, T* tile);

// SumTile: out (+)= the sum over the `samples` of a tile.
template <class T>
void sum_tile(Isa isa, int64_t samples, const T* tile, Range features, bool accumulate, T* out);

}  // namespace tts::compiled
