// Operator `spmm_packed`: the forward product of a matrix that is packed for inference.
#include <torch/csrc/stable/library.h>

#include <limits>
#include <optional>

#include "matrix.h"
#include "tiles.h"

namespace tts {
namespace {

Stored stored_as(const Tensor& values) {
  switch (values.scalar_type()) {
    case ScalarType::Float:
      return Stored::float32;
    case ScalarType::BFloat16:
      return Stored::bfloat16;
    case ScalarType::Char:
      return Stored::int8;
    default:
      refuse("`values` must be float32, bfloat16 or int8, got " + dtype_name(values));
  }
}

// Describes the first code that leads out of the matrix; empty if there is none.
std::string defect_of_codes(const PackedView& w) {
  for (int64_t row = 0; row < w.rows; ++row) {
    int64_t column = 0;
    for (int64_t k = w.crow[row]; k < w.crow[row + 1]; ++k) {
      const uint16_t code = w.codes[k];
      column = w.columns > plain_codes ? column + code : code;
      if (column >= w.columns && !(w.columns > plain_codes && code == skip_code))
        return "`codes[" + std::to_string(k) + "]` leads to column " + std::to_string(column) +
               ", outside [0, in_features) = [0, " + std::to_string(w.columns) + ")";
    }
  }
  return "";
}

[[noreturn, gnu::cold, gnu::noinline]] void refuse_packed(const Tensor& crow, const PackedView& w) {
  std::string defect = detail::defect_of_pointers("crow_indices", crow, w.nnz);
  if (defect.empty()) defect = defect_of_codes(w);
  if (defect.empty()) defect = "a code was changed while it was read";
  refuse("spmm_packed: " + defect + ". Was the packed layer changed? Pack it again");
}

Tensor spmm_packed(const Tensor& input, const Tensor& crow_indices, const Tensor& codes,
                   const Tensor& values, const std::optional<Tensor>& scales,
                   const std::optional<Tensor>& bias) {
  const Tensor x = prepared(input, "input", 2);
  if (sum_type(x, "input") != ScalarType::Float)
    refuse("`input` must be float32, bfloat16 or float16, got " + dtype_name(x));
  const Tensor crow = prepared(crow_indices, "crow_indices", 1, ScalarType::Long);
  const Tensor packed = prepared(codes, "codes", 1, ScalarType::Short);
  const Tensor v = prepared(values, "values", 1);
  const Stored stored = stored_as(v);
  const int64_t nnz = packed.numel(), rows = crow.numel() - 1, columns = x.size(1);
  if (rows < 0) refuse("`crow_indices` must have one entry more than there are rows, got none");
  check_size(v.numel(), nnz, "values", "one for each of `codes`");
  if (columns > std::numeric_limits<int32_t>::max())
    refuse("`input` must have fewer than 2**31 features");
  std::optional<Tensor> s, b;
  if (scales.has_value()) {
    s = prepared(*scales, "scales", 1, ScalarType::Float);
    check_size(s->numel(), rows, "scales", "out_features");
  }
  if (bias.has_value()) {
    b = prepared(*bias, "bias", 1, ScalarType::Float);
    check_size(b->numel(), rows, "bias", "out_features");
  }
  const PackedView w{data<int64_t>(crow),
                     reinterpret_cast<const uint16_t*>(data<int16_t>(packed)),
                     v.const_data_ptr(),
                     stored,
                     s ? data<float>(*s) : nullptr,
                     nnz,
                     rows,
                     columns};
  if (w.crow[0] != 0 || w.crow[rows] != nnz || (columns == 0 && nnz > 0)) refuse_packed(crow, w);

  Tensor output = recycled({x.size(0), rows}, x.scalar_type());
  // The plan reads extents and row pointers alone.
  const CsrView<float, int32_t> extents{w.crow, nullptr, nullptr, nnz, rows, columns};
  const Isa isa = active_isa();
  for_activation_type(x, [&](auto stored_x, auto) {
    using X = decltype(stored_x);
    if constexpr (!std::is_same_v<X, double>) {
      const auto in = activations<X>(x);
      const auto out = mutable_activations<X>(output);
      const bool in_range = for_each_tile(
          make_plan(extents, in.samples, available_threads()), in, extents,
          [&](Range some, int64_t first, int64_t samples, const float* tile) {
            return compiled::spmm_packed_rows(isa, some, w, b ? data<float>(*b) : nullptr, tile,
                                              out.part(first, samples));
          });
      if (!in_range) refuse_packed(crow, w);
    }
  });
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def(
      "spmm_packed(Tensor input, Tensor crow_indices, Tensor codes, Tensor values, "
      "Tensor? scales=None, Tensor? bias=None) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("spmm_packed", TORCH_BOX(&spmm_packed));
}

}  // namespace tts
