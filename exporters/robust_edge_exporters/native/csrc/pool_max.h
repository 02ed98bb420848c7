static float window_max(const struct pool *p, const float *plane, struct window w) {
    float best = -FLT_MAX;
    for (int ky = 0; ky < p->kernel_y; ky++)
        for (int kx = 0; kx < p->kernel_x; kx++) {
            int y = w.y0 + ky * p->dilation_y, x = w.x0 + kx * p->dilation_x;
            if (y >= 0 && y < p->in.height && x >= 0 && x < p->in.width && !(plane[y * p->in.width + x] <= best))
                best = plane[y * p->in.width + x];
        }
    return best;
}

static void pool_max(const struct job *j, const struct pool *p) { pool_planes(j, p, window_max); }

