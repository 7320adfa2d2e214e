// Which compilers can build the operators.
#pragma once

// The kernels shuffle vectors with __builtin_shufflevector, which GCC has from 12 on. Clang 13 is
// the oldest Clang that they have been built with.
#if defined(__clang__)
#define TTS_COMPILER_IS_NEW_ENOUGH (__clang_major__ >= 13)
#elif defined(__GNUC__)
#define TTS_COMPILER_IS_NEW_ENOUGH (__GNUC__ >= 12)
#else
#define TTS_COMPILER_IS_NEW_ENOUGH 0
#endif

#if !TTS_COMPILER_IS_NEW_ENOUGH
#error "torch_truly_sparse needs GCC 12 or Clang 13, or a newer one: set CC and CXX to it"
#endif

#undef TTS_COMPILER_IS_NEW_ENOUGH
