static uint16_t read_short(const unsigned char *p) {
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* IEEE half to single precision. */
static float widen(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, fraction = half & 1023u, word;
    float x;
    if (exponent == 0) {
        x = (float)fraction * (1.0f / 16777216.0f);
        return sign ? -x : x;
    }
    word = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&x, &word, sizeof x);
    return x;
}

static void widen_values(const unsigned char *weights, const struct widened *w, float *values) {
    for (size_t i = 0; i < w->count; i++)
        values[w->expanded + i] = widen(read_short(weights + w->values + 2 * i));
}
