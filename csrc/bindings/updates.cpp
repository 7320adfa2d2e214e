// Operators `spmm_backward_sgd` and `spmm_backward_adamw`: the gradients of a layer, whose weights
// are changed part by part as soon as the gradient of that part is known. No array of the gradient
// of the weights exists.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <tuple>

#include "../kernels/update.h"
#include "gradients.h"
#include "matrix.h"

namespace tts {
namespace {

// Returns the entries of a tensor that is written in place: one for each of the weights.
template <class T>
T* written(const Tensor& tensor, const char* name, int64_t nnz) {
  if (!tensor.is_cpu()) refuse(std::string("`") + name + "` must be a CPU tensor");
  if (tensor.dim() != 1 || tensor.size(0) != nnz)
    refuse(std::string("`") + name + "` must hold one number for each of the " +
           std::to_string(nnz) + " `values`");
  if (!tensor.is_contiguous()) refuse(std::string("`") + name + "` must be contiguous");
  constexpr ScalarType wanted = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
  if (tensor.scalar_type() != wanted)
    refuse(std::string("`") + name + "` must have dtype " + dtype_name(wanted) + ", got " +
           dtype_name(tensor));
  check_storage(tensor, name);
  return mutable_data<T>(tensor);
}

template <class T>
T* written(const std::optional<Tensor>& tensor, const char* name, int64_t nnz) {
  return tensor ? written<T>(*tensor, name, nnz) : nullptr;
}

// Throws if two arrays of the weights' size share memory.
template <class T>
void check_apart(std::initializer_list<const T*> arrays, int64_t nnz) {
  for (auto a = arrays.begin(); a != arrays.end(); ++a)
    for (auto b = a + 1; b != arrays.end(); ++b)
      if (*a && *b && *a < *b + nnz && *b < *a + nnz)
        refuse("`values` and the entries of the optimizer's state must not share memory");
}

struct Operands {
  const Tensor &grad_output, &input, &crow_indices, &col_indices, &values;
  bool for_input, for_bias;
  const std::optional<Tensor>&ccol_indices, &row_indices, &permutation;
};

// Computes the gradients of input and bias, and gives those of the weights to the function that
// `updater(T{}, nnz)` returns, which is called with a range of nonzeros and their gradient.
template <class Updater>
std::tuple<Tensor, Tensor> updated(const char* operation, const Operands& given,
                                   const Updater& updater) {
  const Tensor dy = prepared(given.grad_output, "grad_output", 2);
  const ScalarType sums = sum_type(dy, "grad_output");
  const Tensor x = prepared(given.input, "input", 2, dy.scalar_type());
  const Matrix w = checked_matrix(operation, given.crow_indices, given.col_indices, x.size(1),
                                  given.values, sums);
  check_grad_output(dy, x, w);
  std::optional<Order> order;
  if (given.for_input && x.size(0) > scatter_batch)
    order = checked_order(w, given.ccol_indices, given.row_indices, given.permutation);

  Tensor dx = recycled({given.for_input ? x.size(0) : 0, w.columns}, dy.scalar_type());
  Tensor db = recycled({given.for_bias ? w.rows : 0}, sums);
  for_product_types(dy, w, [&](auto stored, auto sum, auto index) {
    using X = decltype(stored);
    using T = decltype(sum);
    using I = decltype(index);
    const typename Gradients<X, T, I>::Take take = updater(T{}, w.nnz);
    Gradients<X, T, I> gradients{activations<X>(dy), activations<X>(x), w.view<T, I>(),
                                 order ? order->view<I>() : no_order<I>, nullptr};
    gradients.take = &take;
    if (given.for_bias) gradients.db = mutable_data<T>(db);
    if (given.for_input) gradients.dx = mutable_activations<X>(dx);
    check_contents(gradients.compute(), w, order);
  });
  return {dx, db};
}

double limit_of(std::optional<double> clip_value) {
  if (clip_value && !(*clip_value > 0)) refuse("`clip_value` must be greater than 0");
  return clip_value ? *clip_value : std::numeric_limits<double>::infinity();
}

std::tuple<Tensor, Tensor> spmm_backward_sgd(
    const Tensor& grad_output, const Tensor& input, const Tensor& crow_indices,
    const Tensor& col_indices, const Tensor& values, const std::optional<Tensor>& momentum_buffer,
    bool for_input, bool for_bias, double lr, double momentum, double dampening,
    double weight_decay, bool nesterov, bool maximize, std::optional<double> clip_value, bool first,
    const std::optional<Tensor>& ccol_indices, const std::optional<Tensor>& row_indices,
    const std::optional<Tensor>& permutation) {
  const Sgd rule{lr,       momentum, dampening, weight_decay, limit_of(clip_value),
                 nesterov, maximize, first};
  const Operands operands{grad_output, input,    crow_indices, col_indices, values,
                          for_input,   for_bias, ccol_indices, row_indices, permutation};
  return updated("spmm_backward_sgd", operands, [&](auto zero, int64_t nnz) {
    using T = decltype(zero);
    T* const weights = written<T>(values, "values", nnz);
    T* const buffer = written<T>(momentum_buffer, "momentum_buffer", nnz);
    check_apart<T>({weights, buffer}, nnz);
    const Isa isa = active_isa();
    return [=](Range some, const T* gradient) {
      run<SgdUpdate<T>>(isa, rule, some.end - some.begin, gradient, weights + some.begin,
                        buffer ? buffer + some.begin : nullptr);
    };
  });
}

std::tuple<Tensor, Tensor> spmm_backward_adamw(
    const Tensor& grad_output, const Tensor& input, const Tensor& crow_indices,
    const Tensor& col_indices, const Tensor& values, const Tensor& exp_avg,
    const Tensor& exp_avg_sq, const std::optional<Tensor>& max_exp_avg_sq, bool for_input,
    bool for_bias, double lr, double beta1, double beta2, double eps, double weight_decay,
    bool maximize, std::optional<double> clip_value, double step,
    const std::optional<Tensor>& ccol_indices, const std::optional<Tensor>& row_indices,
    const std::optional<Tensor>& permutation) {
  if (!(step >= 1)) refuse("`step` must be at least 1");
  const AdamW rule{lr,
                   beta1,
                   beta2,
                   eps,
                   weight_decay,
                   limit_of(clip_value),
                   maximize,
                   lr / (1 - std::pow(beta1, step)),
                   std::sqrt(1 - std::pow(beta2, step))};
  const Operands operands{grad_output, input,    crow_indices, col_indices, values,
                          for_input,   for_bias, ccol_indices, row_indices, permutation};
  return updated("spmm_backward_adamw", operands, [&](auto zero, int64_t nnz) {
    using T = decltype(zero);
    T* const weights = written<T>(values, "values", nnz);
    T* const mean = written<T>(exp_avg, "exp_avg", nnz);
    T* const square = written<T>(exp_avg_sq, "exp_avg_sq", nnz);
    T* const largest = written<T>(max_exp_avg_sq, "max_exp_avg_sq", nnz);
    check_apart<T>({weights, mean, square, largest}, nnz);
    const Isa isa = active_isa();
    return [=](Range some, const T* gradient) {
      const int64_t b = some.begin;
      run<AdamWUpdate<T>>(isa, rule, some.end - b, gradient, weights + b, mean + b, square + b,
                          largest ? largest + b : nullptr);
    };
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "spmm_backward_sgd(Tensor grad_output, Tensor input, Tensor crow_indices, "
      "Tensor col_indices, Tensor(a!) values, Tensor(b!)? momentum_buffer, bool for_input, "
      "bool for_bias, float lr, float momentum, float dampening, float weight_decay, "
      "bool nesterov, bool maximize, float? clip_value, bool first, Tensor? ccol_indices=None, "
      "Tensor? row_indices=None, Tensor? permutation=None) -> (Tensor, Tensor)");
  m.def(
      "spmm_backward_adamw(Tensor grad_output, Tensor input, Tensor crow_indices, "
      "Tensor col_indices, Tensor(a!) values, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, "
      "Tensor(d!)? max_exp_avg_sq, bool for_input, bool for_bias, float lr, float beta1, "
      "float beta2, float eps, float weight_decay, bool maximize, float? clip_value, float step, "
      "Tensor? ccol_indices=None, Tensor? row_indices=None, Tensor? permutation=None) "
      "-> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("spmm_backward_sgd", TORCH_BOX(&spmm_backward_sgd));
  m.impl("spmm_backward_adamw", TORCH_BOX(&spmm_backward_adamw));
}

}  // namespace tts
