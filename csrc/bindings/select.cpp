// Operators `mark_smallest`, `mark_weakest` and `keep_largest`: exact selection without a sort.
#include "../kernels/select.h"

#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "pieces.h"

namespace tts {
namespace {

// Digits have 16 bits: two histograms for float32, each of which fits in L2. For few numbers digits
// have 8 bits, so that the histograms stay the smaller part of the work.
int digit_bits(int64_t n) { return n < (1 << 18) ? 8 : 16; }

// Finds the boundary of the `wanted[side]` smallest keys of each side. Throws if a side has fewer.
template <class By>
Boundary<typename By::U> find_boundary(const typename By::Value* x, int64_t n,
                                       const int64_t* wanted, const char* const* names) {
  const int bits = digit_bits(n), digits = 1 << bits, bins = By::sides << bits;
  const int64_t workers = std::clamp<int64_t>(n / (2 * bins), 1, available_threads());
  const Scratch<int64_t> histograms(workers * bins);
  int64_t* counts = histograms.get();
  const Isa isa = active_isa();
  Boundary<typename By::U> boundary{};
  for (int side = 0; side < By::sides; ++side) boundary.equal[side] = wanted[side];
  constexpr int width = 8 * static_cast<int>(sizeof(typename By::U));
  for (int shift = width - bits; shift >= 0; shift -= bits) {
    const bool first = shift + bits == width;
    std::fill(counts, counts + workers * bins, int64_t{0});
    for_each_piece(n, workers, [&](int64_t begin, int64_t end, int64_t, int64_t worker) {
      return run<CountDigits<By>>(isa, x + begin, end - begin, first, shift, bits, boundary,
                                  counts + worker * bins);
    });
    for (int64_t i = bins; i < workers * bins; ++i) counts[i % bins] += counts[i];
    for (int side = 0; side < By::sides; ++side) {
      const int64_t* own = counts + side * digits;
      if (first) {
        int64_t all = 0;
        for (int digit = 0; digit < digits; ++digit) all += own[digit];
        if (wanted[side] < 0 || wanted[side] > all)
          refuse(std::string("`") + names[side] + "` must be between 0 and " + std::to_string(all) +
                 ", the number of them, got " + std::to_string(wanted[side]));
      }
      next_digit(own, bits, side, boundary);
    }
  }
  return boundary;
}

template <class By>
void mark(const typename By::Value* x, int64_t n, const int64_t* wanted, const char* const* names,
          uint8_t* marked) {
  const Boundary<typename By::U> boundary = find_boundary<By>(x, n, wanted, names);
  const int64_t workers = n < serial_visits ? 1 : available_threads();
  const Isa isa = active_isa();
  struct Ties {
    int64_t of[2];
  };
  std::vector<Ties> ties(static_cast<size_t>(pieces_of(n)));
  for_each_piece(n, workers, [&](int64_t begin, int64_t end, int64_t piece, int64_t) {
    return run<MarkBelow<By>>(isa, x + begin, end - begin, boundary, marked + begin,
                              static_cast<int64_t*>(ties[static_cast<size_t>(piece)].of));
  });
  int64_t left[2] = {boundary.equal[0], boundary.equal[1]};
  for (Ties& own : ties)  // of equal numbers, those that come first are marked
    for (int side = 0; side < 2; ++side) {
      own.of[side] = std::min(own.of[side], left[side]);
      left[side] -= own.of[side];
    }
  for_each_piece(n, workers, [&](int64_t begin, int64_t end, int64_t piece, int64_t) {
    mark_ties<By>(x + begin, end - begin, boundary, ties[static_cast<size_t>(piece)].of,
                  marked + begin);
    return true;
  });
}

template <template <class> class By>
Tensor select(const Tensor& numbers, const char* name, const int64_t* wanted,
              const char* const* names) {
  const Tensor x = prepared(numbers, name, 1);
  Tensor marked = fresh({x.numel()}, ScalarType::Bool);
  auto* out = mutable_data<uint8_t>(marked);
  if (x.scalar_type() == ScalarType::Float)
    mark<By<float>>(data<float>(x), x.numel(), wanted, names, out);
  else if (x.scalar_type() == ScalarType::Double)
    mark<By<double>>(data<double>(x), x.numel(), wanted, names, out);
  else
    refuse(std::string("`") + name + "` must be float32 or float64, got " + dtype_name(x));
  return marked;
}

Tensor mark_smallest(const Tensor& scores, int64_t count) {
  const char* const names[] = {"count"};
  return select<ByNumber>(scores, "scores", &count, names);
}

Tensor mark_weakest(const Tensor& weights, int64_t positive, int64_t negative) {
  const int64_t wanted[] = {positive, negative};
  const char* const names[] = {"positive", "negative"};
  return select<ByMagnitude>(weights, "weights", wanted, names);
}

template <class T>
std::tuple<Tensor, Tensor> largest(const Tensor& x, const Tensor& y, int64_t count) {
  const int64_t n = x.numel();
  const char* const names[] = {"count"};
  const Scratch<uint8_t> marked(n);
  mark<ByNumberDown<T>>(data<T>(x), n, &count, names, marked.get());
  Tensor numbers = fresh({count}, x.scalar_type());
  Tensor positions = fresh({count}, ScalarType::Long);
  auto* packed_numbers = mutable_data<T>(numbers);
  auto* packed_positions = mutable_data<int64_t>(positions);
  const std::vector<int64_t> before = set_before(marked.get(), n);
  const int64_t workers = n < serial_visits ? 1 : available_threads();
  for_each_piece(n, workers, [&](int64_t begin, int64_t end, int64_t piece, int64_t) {
    const int64_t to = before[static_cast<size_t>(piece)];
    pack_marked(data<T>(x) + begin, data<int64_t>(y) + begin, marked.get() + begin, end - begin,
                count - to, packed_numbers + to, packed_positions + to);
    return true;
  });
  return {numbers, positions};
}

std::tuple<Tensor, Tensor> keep_largest(const Tensor& numbers, const Tensor& positions,
                                        int64_t count) {
  const Tensor x = prepared(numbers, "numbers", 1);
  const Tensor y = prepared(positions, "positions", 1, ScalarType::Long);
  check_size(y.numel(), x.numel(), "positions", "one for each of `numbers`");
  if (x.scalar_type() == ScalarType::Float) return largest<float>(x, y, count);
  if (x.scalar_type() == ScalarType::Double) return largest<double>(x, y, count);
  refuse("`numbers` must be float32 or float64, got " + dtype_name(x));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(torch_truly_sparse, m) {
  m.def("mark_smallest(Tensor scores, SymInt count) -> Tensor");
  m.def("mark_weakest(Tensor weights, SymInt positive, SymInt negative) -> Tensor");
  m.def("keep_largest(Tensor numbers, Tensor positions, SymInt count) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(torch_truly_sparse, CPU, m) {
  m.impl("mark_smallest", TORCH_BOX(&mark_smallest));
  m.impl("mark_weakest", TORCH_BOX(&mark_weakest));
  m.impl("keep_largest", TORCH_BOX(&keep_largest));
}

}  // namespace tts
