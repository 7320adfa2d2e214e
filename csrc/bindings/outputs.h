// Allocates the tensors of results.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <atomic>
#include <cstring>
#include <initializer_list>
#include <new>
#include <optional>
#include <vector>

#include "memory.h"

// Makes a tensor on memory of this library, with a function that frees this memory. torch has
// torch_from_blob from 2.11 on. The library also runs with 2.10, where this weak reference is null.
#if defined(__linux__)
extern "C" __attribute__((weak)) AOTITorchError torch_from_blob(
    void* data, int64_t ndim, const int64_t* sizes, const int64_t* strides, int64_t storage_offset,
    int32_t dtype, int32_t device_type, int32_t device_index, AtenTensorHandle* result,
    int32_t layout, const uint8_t* opaque_metadata, int64_t opaque_metadata_size,
    void (*deleter)(void* data, void* context), void* context);
#endif

namespace tts {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Bytes of an element; 0 for dtypes that no operator returns.
inline size_t element_size(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
    case ScalarType::Long:
      return 8;
    case ScalarType::Float:
    case ScalarType::Int:
      return 4;
    case ScalarType::BFloat16:
    case ScalarType::Half:
      return 2;
    case ScalarType::Bool:
    case ScalarType::Byte:
      return 1;
    default:
      return 0;
  }
}

#if defined(__linux__)
// Returns a contiguous CPU tensor on memory that `deleter(data, context)` frees; nothing on
// failure.
inline std::optional<Tensor> tensor_on(void* data, std::initializer_list<int64_t> size,
                                       ScalarType dtype, void (*deleter)(void*, void*),
                                       void* context) {
  std::vector<int64_t> strides(size.size(), 1);
  for (size_t i = strides.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * size.begin()[i];
  AtenTensorHandle handle = nullptr;
  const AOTITorchError failed =
      torch_from_blob(data, static_cast<int64_t>(size.size()), size.begin(), strides.data(), 0,
                      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
                      aoti_torch_device_type_cpu(), -1, &handle, aoti_torch_layout_strided(),
                      nullptr, 0, deleter, context);
  if (failed != AOTI_TORCH_SUCCESS) return std::nullopt;
  return Tensor(handle);
}
#endif

// Returns the bytes of a tensor, or 0 if the number overflows: torch::stable::empty then raises.
inline size_t bytes_of(std::initializer_list<int64_t> size, ScalarType dtype) {
  int64_t bytes = static_cast<int64_t>(element_size(dtype));
  for (const int64_t extent : size)
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return 0;
  return static_cast<size_t>(bytes);
}

// Whether results are filled with 0xFF before kernels write them; set by `poison_results`.
inline std::atomic<bool> results_poisoned{false};

// Returns the tensor itself, filled with bytes 0xFF (NaN in floats, -1 in integers) if results are
// poisoned: tests then see an entry that a kernel leaves unwritten, whatever the memory held
// before.
inline Tensor poisoned_if_asked(Tensor tensor) {
  if (results_poisoned.load(std::memory_order_relaxed) && tensor.numel() > 0)
    std::memset(tensor.mutable_data_ptr(), 0xFF,
                static_cast<size_t>(tensor.numel()) * tensor.element_size());
  return tensor;
}

// Returns an uninitialised contiguous CPU tensor. A large tensor lies on huge pages of its own,
// which go back to the system when the tensor is freed. malloc would keep them, and the temporaries
// of an evolution would take twice the memory.
inline Tensor fresh(std::initializer_list<int64_t> size, ScalarType dtype) {
#if defined(__linux__)
  const size_t bytes = bytes_of(size, dtype);
  if (bytes >= huge_from && torch_from_blob != nullptr) {
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    advise_huge_pages(data, bytes);
    const auto unmap = [](void* block, void* length) {
      munmap(block, reinterpret_cast<size_t>(length));
    };
    if (auto tensor = tensor_on(data, size, dtype, unmap, reinterpret_cast<void*>(bytes)))
      return poisoned_if_asked(*tensor);
    munmap(data, bytes);
  }
#endif
  return poisoned_if_asked(torch::stable::empty(size, dtype));
}

// Returns an uninitialised contiguous CPU tensor for a result that every training step makes and
// frees. A large tensor lies in a block of the cache (memory.h).
inline Tensor recycled(std::initializer_list<int64_t> size, ScalarType dtype) {
#if defined(__linux__)
  const size_t bytes = bytes_of(size, dtype);
  if (bytes >= cached_from && torch_from_blob != nullptr) {
    void* data = BlockCache::global().acquire(bytes);
    const auto release = [](void* block, void*) { BlockCache::global().release(block); };
    if (auto tensor = tensor_on(data, size, dtype, release, nullptr))
      return poisoned_if_asked(*tensor);
    BlockCache::global().release(data);
  }
#endif
  return poisoned_if_asked(torch::stable::empty(size, dtype));
}

}  // namespace tts
