// Memory that does not pay for page faults it need not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tts {

// Fresh memory comes in pages of 4 KiB, each at the price of a fault (about 0.25 microseconds for
// the kernel to zero and map it, more than the arithmetic on it). From this many bytes on, ask for
// pages of 2 MiB instead.
constexpr size_t huge_from = size_t{4} << 20;
constexpr size_t huge_page = size_t{2} << 20;

// Asks for huge pages on the part of [data, data + bytes) that they can cover. Only advice:
// nothing happens where the system has none.
inline void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = huge_page;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) & ~(page - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(page - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

// Uninitialised scratch of `size` values: on cache-line boundaries, and from 1 MiB on laid out for
// huge pages, since tiles of that size are read at random. Throws std::bad_alloc.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    const size_t wanted = static_cast<size_t>(size) * sizeof(T);
    const size_t unit = wanted < (size_t{1} << 20) ? 64 : huge_page;
    const size_t bytes = wanted > 0 ? (wanted + unit - 1) / unit * unit : unit;
    data_ = static_cast<T*>(std::aligned_alloc(unit, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    if (unit == huge_page) advise_huge_pages(data_, bytes);
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace tts
