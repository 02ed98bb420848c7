/* 1 / (1 + exp(-x)) of a vector, within 5e-7 of itself; a NaN stays a NaN. */
#ifndef ROBUST_EDGE_SIGMOID_H
#define ROBUST_EDGE_SIGMOID_H

#include <string.h>

#include "vector.h"

/* 1 / x, for x from 1 to 2^126: on x86 an approximation and a step of Newton's method, which is faster than a division. */
#if LANES > 1 && defined(__SSE__)
INLINE vec reciprocal(vec x) {
#if LANES == 16
    vec r = _mm512_rcp14_ps(x);
#elif LANES == 8
    vec r = _mm256_rcp_ps(x);
#else
    vec r = _mm_rcp_ps(x);
#endif
    return r * (splat(2) - x * r);
}
#else
INLINE vec reciprocal(vec x) { return splat(1) / x; }
#endif

/* exp(-x) = 2^n * 2^f with n whole and |f| <= 1/2. Adding ROUND leaves n in the low bits of a float, from where it moves to
   the exponent; the polynomial is 2^f within 8e-8, the one of degree 5 with the least relative error. */
INLINE vec sigmoid(vec x) {
    const vec round = splat(12582912.0f); /* 1.5 * 2^23 */
    vec t = clamp(x * splat(-1.44269504f), splat(-125.0f), splat(125.0f)), shifted = t + round, power;
    const vec f = t - (shifted - round);
    bits n;
    vec p = splat(0.00132765f) * f + splat(0.00967554f);
    p = p * f + splat(0.05550713f);
    p = p * f + splat(0.2402212f);
    p = p * f + splat(0.69314697f);
    p = p * f + splat(1.00000007f);
    memcpy(&n, &shifted, sizeof n);
    n = (n << 23) + 0x3f800000u;
    memcpy(&power, &n, sizeof power);
    return reciprocal(p * power + splat(1));
}

#endif
