// Hypergeometric random numbers: how many items of a uniform sample lie in a part of the
// population.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "philox.h"

namespace tts {

// log(n!) minus Stirling's formula, accurate for every n >= 0 (Loader 2000, "Fast and accurate
// computation of binomial probabilities").
inline double stirling_error(double n) {
  constexpr double half_log_two_pi = 0.918938533204672741780329736406;
  if (n < 16)
    return std::lgamma(n + 1) - (n > 0 ? (n + 0.5) * std::log(n) : 0) + n - half_log_two_pi;
  const double n2 = n * n;
  return (1.0 / 12 - (1.0 / 360 - (1.0 / 1260 - 1.0 / 1680 / n2) / n2) / n2) / n;
}

// x log(x / mean) + mean - x without cancellation (Loader 2000).
inline double deviance(double x, double mean) {
  if (std::abs(x - mean) >= 0.1 * (x + mean)) return x * std::log(x / mean) + mean - x;
  const double v = (x - mean) / (x + mean);
  double sum = (x - mean) * v, power = 2 * x * v;
  for (int j = 3;; j += 2) {
    power *= v * v;
    const double next = sum + power / j;
    if (next == sum) return sum;
    sum = next;
  }
}

// log of the binomial probability of x successes in n trials, 0 < p = 1 - q < 1.
inline double log_binomial(double x, double n, double p, double q) {
  constexpr double two_pi = 6.283185307179586476925286766559;
  if (x == 0) return n == 0 ? 0 : (p < 0.1 ? -deviance(n, n * q) - n * p : n * std::log(q));
  if (x == n) return q < 0.1 ? -deviance(n, n * p) - n * q : n * std::log(p);
  return stirling_error(n) - stirling_error(x) - stirling_error(n - x) - deviance(x, n * p) -
         deviance(n - x, n * q) - 0.5 * std::log(two_pi * x * (n - x) / n);
}

// The number of marked items among `draws` taken without replacement from `marked` + `unmarked`.
// By inversion, with a search outwards from the mode: O(standard deviation) steps.
inline int64_t hypergeometric(int64_t marked, int64_t unmarked, int64_t draws, Philox& random) {
  const int64_t lowest = std::max<int64_t>(0, draws - unmarked);
  const int64_t highest = std::min(draws, marked);
  if (lowest == highest) return lowest;
  const double good = static_cast<double>(marked), bad = static_cast<double>(unmarked);
  const double n = static_cast<double>(draws), total = good + bad;
  const int64_t mode = std::clamp(
      static_cast<int64_t>(std::floor((n + 1) / (total + 2) * (good + 1))), lowest, highest);

  const double p = n / total, q = (total - n) / total, m = static_cast<double>(mode);
  const double peak = std::exp(log_binomial(m, good, p, q) + log_binomial(n - m, bad, p, q) -
                               log_binomial(n, total, p, q));
  double remaining = random.uniform() - peak;
  double up = peak, down = peak;
  int64_t above = mode, below = mode;
  while (remaining >= 0) {
    if (above < highest) {
      const double x = static_cast<double>(above++);
      up *= (good - x) / (x + 1) * ((n - x) / (bad - n + x + 1));
      if ((remaining -= up) < 0) return above;
    } else {
      up = 0;
    }
    if (below > lowest) {
      const double x = static_cast<double>(below--);
      down *= x / (good - x + 1) * ((bad - n + x) / (n - x + 1));
      if ((remaining -= down) < 0) return below;
    } else {
      down = 0;
    }
    if (up + down < 1e-300) break;  // a rest of probability, from rounding, goes to the mode
  }
  return mode;
}

}  // namespace tts
