// The rules by which an optimizer changes weights, applied to some nonzeros whose gradient has just
// been computed.
#pragma once

#include <cmath>
#include <cstdint>

#include "bounds.h"
#include "simd.h"

namespace tts {

// Stochastic gradient descent with momentum, as torch.optim.SGD computes it.
//   g = sign clip(gradient) + weight_decay w
//   buffer = first ? g : momentum buffer + (1 - dampening) g      (only with momentum)
//   w -= lr (nesterov ? g + momentum buffer : buffer)
struct Sgd {
  double lr, momentum, dampening, weight_decay, clip;  // clip: infinity for none
  bool nesterov, maximize;
  bool first;  // whether the buffer holds nothing yet
};

// Adam with decoupled weight decay, as torch.optim.AdamW computes it.
//   w *= 1 - lr weight_decay
//   m = m + (1 - beta1) (g - m),  v = beta2 v + (1 - beta2) g^2,  largest = max(largest, v)
//   w -= step_size m / (sqrt(v or largest) / correction + eps)
struct AdamW {
  double lr, beta1, beta2, eps, weight_decay, clip;
  bool maximize;
  double step_size;   // lr / (1 - beta1^step)
  double correction;  // sqrt(1 - beta2^step)
};

// NaN stays NaN: neither comparison holds for it.
template <class T>
TTS_INLINE T clipped(T gradient, T limit) {
  const T above = gradient > limit ? limit : gradient;
  return above < -limit ? -limit : above;
}

// Applies `rule` to w[i], with the state of entry i, for every i < count. `buffer` is null without
// momentum. gradient, w and buffer (count) do not alias. Cost: O(count).
template <class T>
struct SgdUpdate {
  template <int Bytes>
  static TTS_INLINE bool apply(Sgd rule, int64_t count, const T* __restrict gradient,
                               T* __restrict w, T* __restrict buffer) {
    const T lr = static_cast<T>(rule.lr), decay = static_cast<T>(rule.weight_decay);
    const T momentum = static_cast<T>(rule.momentum), sign = rule.maximize ? T(-1) : T(1);
    const T share = static_cast<T>(1 - rule.dampening), limit = static_cast<T>(rule.clip);
    const auto direction = [&](int64_t i) __attribute__((always_inline)) {
      return sign * clipped(gradient[i], limit) + decay * w[i];
    };
    if (!buffer) {
      for (int64_t i = 0; i < count; ++i) w[i] -= lr * direction(i);
    } else if (rule.first) {
      for (int64_t i = 0; i < count; ++i) {
        const T g = direction(i);
        buffer[i] = g;
        w[i] -= lr * (rule.nesterov ? g + momentum * g : g);
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        const T g = direction(i), next = momentum * buffer[i] + share * g;
        buffer[i] = next;
        w[i] -= lr * (rule.nesterov ? g + momentum * next : next);
      }
    }
    return true;
  }
};

// The same for AdamW. `largest` (count) is null without AMSGrad; no two arrays alias.
template <class T>
struct AdamWUpdate {
  template <int Bytes>
  static TTS_INLINE bool apply(AdamW rule, int64_t count, const T* __restrict gradient,
                               T* __restrict w, T* __restrict mean, T* __restrict square,
                               T* __restrict largest) {
    const T kept = static_cast<T>(1 - rule.lr * rule.weight_decay);
    const T share1 = static_cast<T>(1 - rule.beta1), share2 = static_cast<T>(1 - rule.beta2);
    const T beta2 = static_cast<T>(rule.beta2), eps = static_cast<T>(rule.eps);
    const T step_size = static_cast<T>(rule.step_size), limit = static_cast<T>(rule.clip);
    const T correction = static_cast<T>(rule.correction), sign = rule.maximize ? T(-1) : T(1);
    const auto moved = [&](int64_t i) __attribute__((always_inline)) {
      const T g = sign * clipped(gradient[i], limit);
      mean[i] += share1 * (g - mean[i]);
      square[i] = beta2 * square[i] + share2 * (g * g);
    };
    const auto change = [&](int64_t i, T v) __attribute__((always_inline)) {
      w[i] = kept * w[i] - step_size * (mean[i] / (std::sqrt(v) / correction + eps));
    };
    if (!largest) {
      for (int64_t i = 0; i < count; ++i) {
        moved(i);
        change(i, square[i]);
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        moved(i);
        // NaN wins, as in torch.maximum.
        largest[i] = largest[i] >= square[i] ? largest[i] : square[i];
        change(i, largest[i]);
      }
    }
    return true;
  }
};

// Whether every col[i] lies in [0, extent), for i < count.
template <class I>
struct IndicesInRange {
  template <int Bytes>
  static TTS_INLINE bool apply(const I* col, int64_t count, int64_t extent) {
    constexpr int64_t most = 512;
    I checked[most];
    bool in_range = true;
    for (int64_t i = 0; i < count; i += most)
      clamp_indices(col + i, count - i < most ? count - i : most, extent, checked, in_range);
    return in_range;
  }
};

}  // namespace tts
