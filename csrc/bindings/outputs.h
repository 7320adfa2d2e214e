// Tensors for results.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <vector>

#include "memory.h"

// A tensor on memory of our own, with a function that takes it back. torch has it from 2.11 on;
// the library runs with 2.10, too, where the reference stays null.
#if defined(__linux__)
extern "C" __attribute__((weak)) AOTITorchError torch_from_blob(
    void* data, int64_t ndim, const int64_t* sizes, const int64_t* strides,
    int64_t storage_offset, int32_t dtype, int32_t device_type, int32_t device_index,
    AtenTensorHandle* result, int32_t layout, const uint8_t* opaque_metadata,
    int64_t opaque_metadata_size, void (*deleter)(void* data, void* context), void* context);
#endif

namespace tts {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// An uninitialised contiguous CPU tensor; a large one lies in a block of the cache (memory.h).
inline Tensor fresh(const Tensor& like, std::initializer_list<int64_t> size, ScalarType dtype) {
#if defined(__linux__)
  size_t bytes = dtype == ScalarType::Double || dtype == ScalarType::Long    ? 8
                 : dtype == ScalarType::BFloat16 || dtype == ScalarType::Half ? 2
                                                                              : 4;
  for (const int64_t extent : size) bytes *= static_cast<size_t>(extent);
  if (bytes >= cached_from && torch_from_blob != nullptr) {
    std::vector<int64_t> strides(size.size(), 1);
    for (size_t i = strides.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * size.begin()[i];
    void* data = BlockCache::global().acquire(bytes);
    AtenTensorHandle handle = nullptr;
    const AOTITorchError failed = torch_from_blob(
        data, static_cast<int64_t>(size.size()), size.begin(), strides.data(), 0,
        torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
        aoti_torch_device_type_cpu(), -1, &handle, aoti_torch_layout_strided(), nullptr, 0,
        [](void* block, void*) { BlockCache::global().release(block); }, nullptr);
    if (failed == AOTI_TORCH_SUCCESS) return Tensor(handle);
    BlockCache::global().release(data);
  }
#endif
  return torch::stable::new_empty(like, size, dtype);
}

}  // namespace tts
