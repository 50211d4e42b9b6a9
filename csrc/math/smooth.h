// Smooth activations y = φ(z) with φ′ and φ″, in float32, as expressions that a compiler makes vectors of: no tables,
// no calls, no branches.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace wgan::math {

// As rules/_smooth.py numbers them; none: pieces of a line.
enum class Curve : int64_t { kNone, kTanh, kSigmoid, kSoftplus, kSilu, kGelu, kElu };

struct Bent {
  float y, slope, bend;  // φ(z), φ′(z), φ″(z)
};

// e^x = scale·(1 + rest), with rest = e^r − 1 and |r| ≤ ln 2/2: Taylor's series to r⁷ leaves 1e-8 of it.
struct Exponential {
  float scale, rest;
  float value() const { return scale * rest + scale; }
  float minus_one() const { return scale * rest + (scale - 1.f); }
};

// Of x from −87 to 88; beyond, of these. NaN stays NaN.
inline Exponential exponential(float x) {
  x = x < -87.f ? -87.f : x;
  x = x > 88.f ? 88.f : x;
  const float shifted = x * 1.44269504f + 12582912.f;  // the integer next to x/ln 2, in the last bits
  const float n = shifted - 12582912.f;
  const float r = x - n * 0.693359375f - n * -2.12194440e-4f;  // ln 2 in two parts
  float sum = 1.f / 5040;
  sum = sum * r + 1.f / 720;
  sum = sum * r + 1.f / 120;
  sum = sum * r + 1.f / 24;
  sum = sum * r + 1.f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.f;
  return {std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u), sum * r};
}

// s = 1/(1 + e^(−z)) and 1 − s, neither by a difference; least: e^(−|z|).
struct Sigmoid {
  float s, rest, least;

  explicit Sigmoid(float z) : least(exponential(-std::fabs(z)).value()) {
    const float larger = 1.f / (1.f + least), smaller = least * larger;
    s = z < 0.f ? smaller : larger;
    rest = z < 0.f ? larger : smaller;
  }
};

// log(1 + w) of 0 ≤ w ≤ 1: 2·artanh(v), v = w/(2 + w) ≤ 1/3, whose series to v¹⁵ leaves 2e-9 of it.
inline float log1p_of_unit(float w) {
  const float v = w / (2.f + w), square = v * v;
  float sum = 1.f / 15;
  sum = sum * square + 1.f / 13;
  sum = sum * square + 1.f / 11;
  sum = sum * square + 1.f / 9;
  sum = sum * square + 1.f / 7;
  sum = sum * square + 1.f / 5;
  sum = sum * square + 1.f / 3;
  sum = sum * square + 1.f;
  return 2.f * v * sum;
}

struct Tanh {
  static Bent of(float z) {
    const Exponential e = exponential(-2.f * std::fabs(z));
    const float under = 2.f + e.minus_one();  // 1 + e^(−2|z|)
    const float y = std::copysign(e.minus_one() / under, z), slope = 4.f * e.value() / (under * under);
    return {y, slope, -2.f * y * slope};
  }
};

struct Logistic {
  static Bent of(float z) {
    const Sigmoid of(z);
    const float slope = of.s * of.rest;
    return {of.s, slope, slope * (of.rest - of.s)};
  }
};

struct Softplus {
  static Bent of(float z) {
    const Sigmoid of(z);
    return {(z < 0.f ? 0.f : z) + log1p_of_unit(of.least), of.s, of.s * of.rest};
  }
};

// z·s: Elfwing, Uchibe, Doya 2018
struct Silu {
  static Bent of(float z) {
    const Sigmoid of(z);
    const float slope = of.s * of.rest;
    return {z * of.s, of.s + z * slope, slope * (2.f + z * (of.rest - of.s))};
  }
};

// z·Φ(z), with the normal distribution Φ by Abramowitz and Stegun 7.1.26, within 7.5e-8: Hendrycks, Gimpel 2016
struct Gelu {
  static Bent of(float z) {
    const float square = z * z > 1e4f ? 1e4f : z * z, density = 0.398942280f * exponential(-0.5f * square).value();
    const float t = 1.f / (1.f + 0.3275911f * 0.707106781f * std::fabs(z));
    float sum = 1.061405429f;
    sum = sum * t - 1.453152027f;
    sum = sum * t + 1.421413741f;
    sum = sum * t - 0.284496736f;
    sum = sum * t + 0.254829592f;
    const float tail = 1.25331414f * density * t * sum;  // 1.25331414 = √(2π)/2
    const float below = z < 0.f ? tail : 1.f - tail;
    return {z * below, below + z * density, density * (2.f - square)};
  }
};

struct Elu {
  static Bent of(float z) {
    const Exponential e = exponential(z > 0.f ? 0.f : z);
    return {z > 0.f ? z : e.minus_one(), e.value(), z >= 0.f ? 0.f : e.value()};
  }
};

}  // namespace wgan::math
