// Runs the products and the passes over a topology on several threads, without torch, for
// ThreadSanitizer: no two threads may touch the same number unless both read it. Every result is
// compared, bit by bit, with that of one thread.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "../../csrc/bindings/gradients.h"
#include "../../csrc/bindings/products.h"
#include "../../csrc/kernels/compress.h"
#include "../../csrc/kernels/transpose.h"

namespace tts {

// The instruction set that the processor has, unless TORCH_TRULY_SPARSE_ISA names a narrower one.
Isa active_isa() {
  static const Isa chosen = [] {
    const char* wanted = std::getenv("TORCH_TRULY_SPARSE_ISA");
    const auto may = [&](const char* name) {
      return wanted == nullptr || std::strcmp(wanted, name) == 0;
    };
#if TTS_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl");
    if (avx512 && may("avx512")) return Isa::avx512;
    if (avx2 && may("avx2")) return Isa::avx2;
#elif defined(__aarch64__)
    if (may("neon")) return Isa::neon;
#endif
    return Isa::scalar;
  }();
  return chosen;
}

}  // namespace tts

namespace {

using tts::Activations;

struct Shape {
  int64_t rows, columns, nnz, batch;
};

// A matrix, activations of both sides, and the order by columns.
template <class X, class T, class I>
struct Problem {
  Shape shape;
  std::vector<I> row, col, row_of, permutation;
  std::vector<int64_t> crow, ccol;
  std::vector<T> values, bias;
  std::vector<X> x, dy;

  Problem(const Shape& s, uint32_t seed) : shape(s) {
    std::mt19937_64 random(seed);
    std::vector<int64_t> taken;
    const int64_t empty = s.rows * s.columns - s.nnz;
    int64_t left = s.nnz, over = empty;
    for (int64_t at = 0; at < s.rows * s.columns && left > 0; ++at) {
      const bool here = static_cast<int64_t>(random() % static_cast<uint64_t>(left + over)) < left;
      (here ? left : over) -= 1;
      if (here) taken.push_back(at);
    }
    for (const int64_t at : taken) {
      row.push_back(static_cast<I>(at / s.columns));
      col.push_back(static_cast<I>(at % s.columns));
    }
    std::uniform_real_distribution<float> number(-1, 1);
    const auto fill = [&](auto& list, int64_t size) {
      list.resize(size);
      for (auto& entry : list) tts::narrow(number(random), entry);
    };
    fill(values, s.nnz), fill(bias, s.rows);
    fill(x, s.batch * s.columns), fill(dy, s.batch * s.rows);
    crow.resize(s.rows + 1), ccol.resize(s.columns + 1);
    row_of.resize(s.nnz), permutation.resize(s.nnz);
  }

  // All that is computed from the problem, on as many threads as torch::stable::threads says.
  std::vector<std::vector<char>> compute() {
    const Shape& s = shape;
    const tts::CooView<I> coordinates{row.data(), col.data(), s.nnz, s.rows, s.columns};
    bool fine = tts::parallel_pieces(s.nnz, s.nnz, [&](int64_t begin, int64_t end) {
      tts::compress(coordinates, {begin, end}, crow.data());
      return true;
    });
    const tts::CsrView<T, I> w{crow.data(), col.data(), values.data(), s.nnz, s.rows, s.columns};
    const tts::CsrView<void, I> pattern{crow.data(), col.data(), nullptr, s.nnz, s.rows, s.columns};
    fine &= tts::transpose(pattern, ccol.data(), row_of.data(), permutation.data());
    const tts::ColumnOrder<I> order{ccol.data(), row_of.data(), permutation.data()};
    const Activations<const X> from{x.data(), s.batch, s.columns}, back{dy.data(), s.batch, s.rows};

    std::vector<std::vector<char>> results;
    std::vector<X> y(s.batch * s.rows), dx(s.batch * s.columns);
    std::vector<T> dw(s.nnz), db(s.rows);
    const auto keep = [&](const auto& list) {
      const char* bytes = reinterpret_cast<const char*>(list.data());
      results.emplace_back(bytes, bytes + list.size() * sizeof(list[0]));
    };
    const T* offset = bias.data();
    fine &= tts::multiply(from, w, offset, Activations<X>{y.data(), s.batch, s.rows});
    keep(y), keep(crow);
    const Activations<X> into{dx.data(), s.batch, s.columns};
    fine &= tts::multiply_transposed(back, w, into);
    keep(dx);
    for (const bool ordered : {false, true})
      for (const bool for_input : {false, true}) {
        tts::Gradients<X, T, I> gradients{back, from, w, {nullptr, nullptr, nullptr}, dw.data()};
        if (ordered) gradients.order = order;
        gradients.db = db.data();
        if (for_input) gradients.dx = into;
        fine &= gradients.compute();
        keep(dw), keep(db), keep(dx);
      }
    if (!fine) std::printf("an index was out of range\n"), std::exit(1);
    return results;
  }
};

int compared = 0;

template <class X, class T, class I>
void compare(const Shape& shape, uint32_t seed) {
  Problem<X, T, I> problem(shape, seed);
  torch::stable::threads = 1;
  const auto expected = problem.compute();
  for (uint32_t threads = 2; threads <= 4; ++threads) {
    torch::stable::threads = threads;
    if (problem.compute() != expected) {
      std::printf("%u threads differ from one at %lld x %lld, %lld nonzeros, batch %lld\n", threads,
                  static_cast<long long>(shape.rows), static_cast<long long>(shape.columns),
                  static_cast<long long>(shape.nnz), static_cast<long long>(shape.batch));
      std::exit(1);
    }
    ++compared;
  }
}

// Two models in two threads, each of which divides its work again; they share the cache of blocks.
void side_by_side(uint32_t models) {
  const Shape shape{300, 500, 15000, 40};
  Problem<float, float, int32_t> alone(shape, 7);
  torch::stable::threads = 1;
  const auto expected = alone.compute();
  std::vector<std::thread> running;
  for (uint32_t i = 0; i < models; ++i)
    running.emplace_back([&expected, shape] {
      torch::stable::threads = 2;
      Problem<float, float, int32_t> own(shape, 7);
      for (int again = 0; again < 3; ++again)
        if (own.compute() != expected) std::printf("models disturb each other\n"), std::exit(1);
    });
  for (std::thread& thread : running) thread.join();
  compared += static_cast<int>(models);
}

}  // namespace

int main() {
  const Shape shapes[] = {
      {200, 300, 20000, 1},    {200, 300, 20000, 2},   {200, 300, 20000, 16},
      {200, 300, 20000, 17},   {64, 40, 2000, 130},    {1000, 30, 20000, 4},
      {30, 1000, 20000, 70},   {500, 70000, 40000, 3}, {3, 20000, 30000, 33},
      {70000, 500, 40000, 20}, {128, 128, 16384, 300}, {200, 20, 0, 40},
  };
  uint32_t seed = 0;
  for (const Shape& shape : shapes) {
    compare<float, float, int32_t>(shape, ++seed);
    compare<double, double, int64_t>(shape, ++seed);
    compare<tts::BFloat16, float, int32_t>(shape, ++seed);
  }
  side_by_side(4);
  std::printf("%d results on several threads equal those on one, bit by bit\n", compared);
  return 0;
}
