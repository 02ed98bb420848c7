/* out = the larger of out and every `step`-th pixel. */
INLINE void larger(float *out, const float *in, int count, const int step) {
    for (int x = 0; x < count; x++)
        out[x] = in[x * step] <= out[x] ? out[x] : in[x * step];
}

/* Tap by tap over the whole row, which compilers turn into vectors. */
static void max_row(const struct pool *p, const float *plane, int y, float *out) {
    int step = p->stride_x;
    for (int x = 0; x < p->out.width; x++)
        out[x] = -FLT_MAX;
    for (int ky = 0; ky < p->kernel_y; ky++) {
        int from = y * p->stride_y - p->top + ky * p->dilation_y;
        if (from < 0 || from >= p->in.height)
            continue;
        for (int kx = 0; kx < p->kernel_x; kx++) {
            int dx = kx * p->dilation_x - p->left, first = dx < 0 ? (-dx + step - 1) / step : 0;
            int last = dx < p->in.width ? (p->in.width - 1 - dx) / step + 1 : 0;
            const float *in = plane + from * p->in.width + (first * step + dx);
            last = last > p->out.width ? p->out.width : last;
            if (step == 1)
                larger(out + first, in, last - first, 1);
            else if (step == 2)
                larger(out + first, in, last - first, 2);
            else
                larger(out + first, in, last - first, step);
        }
    }
}

static void pool_max(const struct job *j, const struct pool *p) { pool_planes(j, p, max_row); }
