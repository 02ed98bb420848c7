/* Activations, in place. */
static void activate(float *x, int floats, const struct activation *a) {
    switch (a->kind) {
    case LINEAR:
        break;
    case CLAMP:
        for (int i = 0; i < floats; i += LANES)
            store(x + i, clamp(load(x + i), splat(a->lo), splat(a->hi)));
        break;
    case LEAKY_RELU:
        for (int i = 0; i < floats; i++)
            x[i] = x[i] < 0 ? a->lo * x[i] : x[i];
        break;
    case SIGMOID:
        for (int i = 0; i < floats; i++)
            x[i] = 1.0f / (1.0f + expf(-x[i]));
        break;
    case HARD_SWISH:
        for (int i = 0; i < floats; i++) {
            float gate = x[i] * (1.0f / 6.0f) + 0.5f;
            x[i] *= gate < 0 ? 0 : gate > 1 ? 1 : gate;
        }
        break;
    }
}
