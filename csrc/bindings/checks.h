// What every operator checks before a kernel sees a pointer. All throw std::invalid_argument,
// which arrives in Python as a ValueError.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <stdexcept>
#include <string>

namespace tts {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

[[noreturn]] inline void refuse(const std::string& text) { throw std::invalid_argument(text); }

inline std::string dtype_name(const Tensor& tensor) {
  return torch::headeronly::toString(tensor.scalar_type());
}

// A CPU tensor of `dim` dimensions, made contiguous.
inline Tensor prepared(const Tensor& tensor, const char* name, int64_t dim) {
  if (!tensor.is_cpu()) refuse(std::string("`") + name + "` must be a CPU tensor");
  if (tensor.dim() != dim)
    refuse(std::string("`") + name + "` must have " + std::to_string(dim) +
           " dimension(s), got " + std::to_string(tensor.dim()));
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A prepared tensor of the given dtype.
inline Tensor prepared(const Tensor& tensor, const char* name, int64_t dim, ScalarType dtype) {
  Tensor result = prepared(tensor, name, dim);
  if (result.scalar_type() != dtype)
    refuse(std::string("`") + name + "` must have dtype " + torch::headeronly::toString(dtype) +
           ", got " + dtype_name(result));
  return result;
}

inline void check_size(int64_t actual, int64_t expected, const char* name, const char* reason) {
  if (actual != expected)
    refuse(std::string("`") + name + "` must have size " + std::to_string(expected) + " (" +
           reason + "), got " + std::to_string(actual));
}

// The number of rows that row pointers describe.
inline int64_t rows_of(const Tensor& crow, const char* name) {
  if (crow.numel() < 1)
    refuse(std::string("`") + name + "` must have one entry more than there are rows, got none");
  return crow.numel() - 1;
}

// Calls f(T{}) for float32 and float64.
template <class F>
void for_value_type(const Tensor& tensor, const char* name, F&& f) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    default:
      refuse(std::string("`") + name + "` must be float32 or float64, got " + dtype_name(tensor));
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

// Raises what a kernel flagged.
inline void check_in_range(bool in_range, const char* operation) {
  if (!in_range)
    refuse(std::string(operation) +
           ": the topology holds an index outside the layer; `indices` must lie in "
           "[0, out_features) and [0, in_features). It was changed after it had been checked: "
           "assign a valid topology to the layer");
}

}  // namespace tts
