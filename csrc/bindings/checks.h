// The checks that every operator makes before it hands a pointer to a kernel. All of them throw
// std::invalid_argument, which becomes a ValueError in Python.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <limits>
#include <stdexcept>
#include <string>

#include "../kernels/half.h"
#include "../kernels/views.h"
#include "outputs.h"

namespace tts {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The text of the last error that `refuse` raised in this thread: see refusals.cpp.
inline thread_local std::string last_refusal;

[[noreturn]] inline void refuse(const std::string& text) {
  last_refusal = text;
  throw std::invalid_argument(text);
}

// A dtype as Python prints it.
inline std::string dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Bool:
      return "torch.bool";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::UInt16:
      return "torch.uint16";
    case ScalarType::UInt32:
      return "torch.uint32";
    case ScalarType::UInt64:
      return "torch.uint64";
    case ScalarType::Char:
      return "torch.int8";
    case ScalarType::Short:
      return "torch.int16";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Long:
      return "torch.int64";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::ComplexHalf:
      return "torch.complex32";
    case ScalarType::ComplexFloat:
      return "torch.complex64";
    case ScalarType::ComplexDouble:
      return "torch.complex128";
    default:  // a dtype that no operator takes; torch's own name suffices
      return torch::headeronly::toString(dtype);
  }
}

inline std::string dtype_name(const Tensor& tensor) { return dtype_name(tensor.scalar_type()); }

// Throws unless the storage of a tensor reaches to its last element. It does not where somebody has
// resized it, as libraries do that bring weights in only while they are needed; torch's own
// functions then read memory that is not theirs.
inline void check_storage(const Tensor& tensor, const char* name) {
  int64_t bytes = 0, last = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(tensor.get(), &last));
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) == 0) return;
    last += (tensor.size(d) - 1) * tensor.stride(d);
  }
  if (last >= bytes / static_cast<int64_t>(tensor.element_size()))
    refuse(std::string("`") + name + "` has lost its memory: its storage holds " +
           std::to_string(bytes) + " bytes, too few for its shape. Was it resized, or are the " +
           "weights gathered only while a wrapper is at work? Use the layer through that wrapper");
}

// Returns a CPU tensor of `dim` dimensions, made contiguous.
inline Tensor prepared(const Tensor& tensor, const char* name, int64_t dim) {
  if (!tensor.is_cpu()) refuse(std::string("`") + name + "` must be a CPU tensor");
  if (tensor.dim() != dim)
    refuse(std::string("`") + name + "` must have " + std::to_string(dim) + " dimension(s), got " +
           std::to_string(tensor.dim()));
  check_storage(tensor, name);
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Returns a prepared tensor of the given dtype.
inline Tensor prepared(const Tensor& tensor, const char* name, int64_t dim, ScalarType dtype) {
  Tensor result = prepared(tensor, name, dim);
  if (result.scalar_type() != dtype)
    refuse(std::string("`") + name + "` must have dtype " + dtype_name(dtype) + ", got " +
           dtype_name(result));
  return result;
}

inline void check_size(int64_t actual, int64_t expected, const char* name, const char* reason) {
  if (actual != expected)
    refuse(std::string("`") + name + "` must have size " + std::to_string(expected) + " (" +
           reason + "), got " + std::to_string(actual));
}

// Throws unless `extent` is a number of rows or columns that has one pointer more in 64 bits.
inline void check_extent(int64_t extent, const char* name) {
  if (extent < 0) refuse(std::string("`") + name + "` must not be negative");
  if (extent == std::numeric_limits<int64_t>::max())
    refuse(std::string("`") + name + "` must stay below 2**63 - 1");
}

// Throws unless `name`, a number that the caller was to count, is the count itself.
inline void check_count(int64_t given, int64_t counted, const char* name, const char* of_what) {
  if (given != counted)
    refuse(std::string("`") + name + "` must be " + std::to_string(counted) + ", the number of " +
           of_what + ", got " + std::to_string(given));
}

// Returns the number of positions of a matrix; throws if it exceeds 63 bits.
inline uint64_t population_of(int64_t out_features, int64_t in_features) {
  if (out_features < 0) refuse("`out_features` must not be negative");
  if (in_features < 0) refuse("`in_features` must not be negative");
  if (in_features > 0 && out_features > std::numeric_limits<int64_t>::max() / in_features)
    refuse("`in_features` times `out_features` must stay below 2**63");
  return static_cast<uint64_t>(out_features) * static_cast<uint64_t>(in_features);
}

// The elements of a checked tensor, read as T.
template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The coordinates (2, nnz) of a topology: contiguous, output units above input units.
inline Tensor prepared_indices(const Tensor& indices) {
  Tensor contiguous = prepared(indices, "indices", 2);
  check_size(contiguous.size(0), 2, "indices", "output units, input units");
  return contiguous;
}

// What kernels take of prepared indices, of a matrix (rows, columns).
template <class I>
CooView<I> coordinates(const Tensor& indices, int64_t rows, int64_t columns) {
  const I* row = data<I>(indices);
  return {row, row + indices.size(1), indices.size(1), rows, columns};
}

// Returns the dtype in which activations are summed, which is also the dtype of the weights.
inline ScalarType sum_type(const Tensor& activations, const char* name) {
  switch (activations.scalar_type()) {
    case ScalarType::Double:
      return ScalarType::Double;
    case ScalarType::Float:
    case ScalarType::BFloat16:
    case ScalarType::Half:
      return ScalarType::Float;
    default:
      refuse(std::string("`") + name + "` must be float32, float64, bfloat16 or float16, got " +
             dtype_name(activations));
  }
}

// Calls f(X{}, T{}) for activations stored as X and summed in T.
template <class F>
void for_activation_type(const Tensor& tensor, const F& f) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return f(double{}, double{});
    case ScalarType::BFloat16:
      return f(BFloat16{}, float{});
    case ScalarType::Half:
      return f(Float16{}, float{});
    default:
      return f(float{}, float{});
  }
}

// Calls f(I{}) for int32 and int64.
template <class F>
void for_index_type(const Tensor& tensor, const char* name, F&& f) {
  switch (tensor.scalar_type()) {
    case ScalarType::Int:
      return f(int32_t{});
    case ScalarType::Long:
      return f(int64_t{});
    default:
      refuse(std::string("`") + name + "` must be int32 or int64, got " + dtype_name(tensor));
  }
}

}  // namespace tts
