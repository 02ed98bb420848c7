/* Exponential and error function in operations that compilers turn into vectors; a NaN stays a NaN. */
#ifndef ROBUST_EDGE_EXPONENTIAL_H
#define ROBUST_EDGE_EXPONENTIAL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

/* exp(x) within 2e-7 of itself, for x clamped to [-87, 88]: 2^n * exp(r) with n whole and |r| <= ln(2) / 2, and the
   polynomial of Cephes' expf. Adding ROUND leaves n in the low bits of a float, from where it moves to the exponent. */
INLINE float exponential(float x) {
    const float round = 12582912.0f; /* 1.5 * 2^23 */
    float shifted, n, r, p, power;
    uint32_t bits;
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    shifted = x * 1.44269504f + round;
    n = shifted - round;
    r = x - n * 0.693359375f + n * 2.12194440e-4f;
    p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r +
         1.6666665459e-1f) * r + 5.0000001201e-1f;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&power, &bits, sizeof power);
    return (p * r * r + r + 1) * power;
}

/* erf(x) within 5e-7: Abramowitz and Stegun 7.1.26. */
INLINE float error_function(float x) {
    float z = x < 0 ? -x : x, t = 1 / (1 + 0.3275911f * z);
    float p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    float y = 1 - p * exponential(-z * z);
    return x < 0 ? -y : y;
}

#endif
