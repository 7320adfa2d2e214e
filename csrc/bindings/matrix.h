// The sparse matrix that an operator is given: all checks of it, and the views for the kernels.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "../kernels/views.h"
#include "checks.h"

namespace tts {

// The order by columns. All tensors are contiguous; extents and dtypes are checked, contents are
// not.
struct Order {
  Tensor ccol, row, permutation;

  template <class I>
  ColumnOrder<I> view() const {
    return {data<int64_t>(ccol), data<I>(row), data<I>(permutation)};
  }
};

// A matrix (rows, columns) in compressed rows. All tensors are contiguous; extents and dtypes are
// checked. Of the contents, only the ends are checked: the row pointers begin at 0 and end at nnz.
// The kernels check each row. The two checks together ensure that every nonzero belongs to a row,
// and that every entry of a result is written.
struct Matrix {
  const char* operation;  // the operator, for the text of an error
  Tensor crow, col;
  std::optional<Tensor> values;
  int64_t nnz, rows, columns;
  bool wide;  // whether the indices are int64, otherwise int32

  template <class T, class I>
  CsrView<T, I> view() const {
    const T* entries = values ? data<T>(*values) : nullptr;
    return {data<int64_t>(crow), data<I>(col), entries, nnz, rows, columns};
  }
};

namespace detail {

// "`name[k]` is 7": one entry of an argument.
inline std::string entry(const char* name, int64_t k, int64_t value) {
  return std::string("`") + name + "[" + std::to_string(k) + "]` is " + std::to_string(value);
}

// Describes the first defect of row pointers; empty if there is none.
inline std::string defect_of_pointers(const char* name, const Tensor& pointers, int64_t nnz) {
  const auto* entries = data<int64_t>(pointers);
  const int64_t last = pointers.numel() - 1;
  const auto text = [&](int64_t i) {
    return std::string("`") + name + "` must rise from 0 to nnz = " + std::to_string(nnz) +
           ", but " + entry(name, i, entries[i]) +
           (i > 0 ? " after " + std::to_string(entries[i - 1]) : "");
  };
  if (entries[0] != 0) return text(0);
  for (int64_t i = 1; i <= last; ++i)
    if (entries[i] < entries[i - 1] || entries[i] > nnz) return text(i);
  return entries[last] == nnz ? "" : text(last);
}

// Describes the first index outside [0, extent); empty if there is none.
template <class I>
std::string defect_of_indices(const char* name, const Tensor& indices, const char* extent_name,
                              int64_t extent) {
  const auto* entries = data<I>(indices);
  for (int64_t k = 0; k < indices.numel(); ++k)
    if (entries[k] < 0 || entries[k] >= extent)
      return entry(name, k, entries[k]) + ", outside [0, " + extent_name + ") = [0, " +
             std::to_string(extent) + ")";
  return "";
}

}  // namespace detail

// Raises the first defect of the contents; a kernel has noticed that there is one, but not which.
[[noreturn, gnu::cold, gnu::noinline]] inline void refuse_contents(const Matrix& w,
                                                                   const Order* order = nullptr) {
  std::string defect = detail::defect_of_pointers("crow_indices", w.crow, w.nnz);
  for_index_type(w.col, "col_indices", [&](auto index) {
    using I = decltype(index);
    const auto look = [&](const char* name, const Tensor& indices, const char* extent_name,
                          int64_t extent) {
      if (defect.empty()) defect = detail::defect_of_indices<I>(name, indices, extent_name, extent);
    };
    look("col_indices", w.col, "in_features", w.columns);
    if (!order) return;
    if (defect.empty()) defect = detail::defect_of_pointers("ccol_indices", order->ccol, w.nnz);
    look("row_indices", order->row, "out_features", w.rows);
    look("permutation", order->permutation, "nnz", w.nnz);
  });
  if (defect.empty()) defect = "an index was changed while it was read";
  refuse(std::string(w.operation) + ": " + defect +
         ". Where a layer raises this, its `indices` were changed past its checks: assign valid "
         "ones to it");
}

// Returns the matrix of the given arguments, with `columns` columns. Throws std::invalid_argument.
inline Matrix checked_matrix(const char* operation, const Tensor& crow_indices,
                             const Tensor& col_indices, int64_t columns) {
  Tensor crow = prepared(crow_indices, "crow_indices", 1, ScalarType::Long);
  Tensor col = prepared(col_indices, "col_indices", 1);
  const ScalarType index = col.scalar_type();
  if (index != ScalarType::Int && index != ScalarType::Long)
    refuse("`col_indices` must be int32 or int64, got " + dtype_name(index));
  const int64_t nnz = col.numel(), rows = crow.numel() - 1;
  if (rows < 0) refuse("`crow_indices` must have one entry more than there are rows, got none");
  check_extent(columns, "in_features");
  const bool wide = index == ScalarType::Long;
  Matrix w{operation, std::move(crow), std::move(col), std::nullopt, nnz, rows, columns, wide};
  const auto* pointers = data<int64_t>(w.crow);
  if (pointers[0] != 0 || pointers[rows] != nnz) refuse_contents(w);
  if (columns == 0 && nnz > 0) refuse_contents(w);  // no index that a kernel could clamp to
  return w;
}

// Returns the matrix with its values, which must have the given dtype.
inline Matrix checked_matrix(const char* operation, const Tensor& crow_indices,
                             const Tensor& col_indices, int64_t columns, const Tensor& values,
                             ScalarType dtype) {
  Tensor v = prepared(values, "values", 1, dtype);
  check_size(col_indices.numel(), v.numel(), "col_indices", "one for each of `values`");
  Matrix w = checked_matrix(operation, crow_indices, col_indices, columns);
  w.values = std::move(v);
  return w;
}

// Returns the order by columns of `w`, or nothing unless all three of its tensors are given.
inline std::optional<Order> checked_order(const Matrix& w,
                                          const std::optional<Tensor>& ccol_indices,
                                          const std::optional<Tensor>& row_indices,
                                          const std::optional<Tensor>& permutation) {
  if (!ccol_indices || !row_indices || !permutation) return std::nullopt;
  Order order{prepared(*ccol_indices, "ccol_indices", 1, ScalarType::Long),
              prepared(*row_indices, "row_indices", 1, w.col.scalar_type()),
              prepared(*permutation, "permutation", 1, w.col.scalar_type())};
  check_size(order.ccol.numel(), w.columns + 1, "ccol_indices", "in_features + 1");
  check_size(order.row.numel(), w.nnz, "row_indices", "one for each of `values`");
  check_size(order.permutation.numel(), w.nnz, "permutation", "one for each of `values`");
  const auto* pointers = data<int64_t>(order.ccol);
  if (pointers[0] != 0 || pointers[w.columns] != w.nnz) refuse_contents(w, &order);
  return order;
}

// The order by columns where there is none.
template <class I>
constexpr ColumnOrder<I> no_order{nullptr, nullptr, nullptr};

inline void check_grad_output(const Tensor& dy, const Tensor& x, const Matrix& w) {
  check_size(dy.size(0), x.size(0), "grad_output", "as many samples as `input`");
  check_size(dy.size(1), w.rows, "grad_output", "out_features");
}

// Raises the defect that a kernel has flagged.
inline void check_contents(bool in_range, const Matrix& w, const std::optional<Order>& order = {}) {
  if (!in_range) refuse_contents(w, order ? &*order : nullptr);
}

// Calls f(X{}, T{}, I{}) for activations stored as X and summed in T, and a matrix with indices I.
template <class F>
void for_product_types(const Tensor& activations, const Matrix& w, const F& f) {
  for_activation_type(activations, [&](auto stored, auto sum) {
    if (w.wide)
      f(stored, sum, int64_t{});
    else
      f(stored, sum, int32_t{});
  });
}

// A view of checked activations.
template <class X>
Activations<const X> activations(const Tensor& tensor) {
  return {data<X>(tensor), tensor.size(0), tensor.size(1)};
}
template <class X>
Activations<X> mutable_activations(const Tensor& tensor) {
  return {mutable_data<X>(tensor), tensor.size(0), tensor.size(1)};
}

}  // namespace tts
