// Operator `move`: carries one number per connection over to the next topology.
#include "../kernels/move.h"

#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "pieces.h"

namespace tts {
namespace {

template <class T>
void move_all(const Tensor& entries, const Tensor& source, const Tensor& given,
              const Tensor& moved) {
  const int64_t step = given.dim() == 0 ? 0 : 1;
  const int64_t count = given.dim() == 0 ? std::numeric_limits<int64_t>::max() : given.numel();
  for_index_type(source, "source", [&](auto index) {
    using J = decltype(index);
    const bool in_range = for_each_piece(
        source.numel(), available_threads(), [&](int64_t begin, int64_t end, int64_t, int64_t) {
          return move(data<T>(entries), entries.numel(), data<T>(given), count, step,
                      data<J>(source), begin, end, mutable_data<T>(moved));
        });
    if (!in_range)
      refuse("`source` must name one of the " + std::to_string(entries.numel()) +
             " `entries`, or ~g for one of `fresh`");
  });
}

Tensor move_entries(const Tensor& entries, const Tensor& source, const Tensor& fresh_entries) {
  const Tensor held = prepared(entries, "entries", 1);
  const Tensor from = prepared(source, "source", 1);
  const Tensor given =
      prepared(fresh_entries, "fresh", fresh_entries.dim() == 0 ? 0 : 1, held.scalar_type());
  Tensor moved = fresh({from.numel()}, held.scalar_type());
  switch (held.element_size()) {
    case 1:
      move_all<uint8_t>(held, from, given, moved);
      break;
    case 2:
      move_all<uint16_t>(held, from, given, moved);
      break;
    case 4:
      move_all<uint32_t>(held, from, given, moved);
      break;
    case 8:
      move_all<uint64_t>(held, from, given, moved);
      break;
    default:
      refuse("`entries` must have a dtype of at most 8 bytes, got " + dtype_name(held));
  }
  return moved;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def("move(Tensor entries, Tensor source, Tensor fresh) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) { m.impl("move", TORCH_BOX(&move_entries)); }

}  // namespace tts
