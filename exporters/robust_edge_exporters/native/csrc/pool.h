struct window {
    int y0, x0; /* input pixel of the first tap, may lie in the padding */
};

typedef float window_function(const struct pool *, const float *, struct window);

static void pool_planes(const struct job *j, const struct pool *p, window_function *window) {
    float *arena = j->context->arena;
    struct range planes = share(p->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = planes.begin; c < planes.end; c++) {
            const float *in = arena + p->in.at + (size_t)g * p->in.image + (size_t)c * (size_t)p->in.pitch;
            float *out = arena + p->out.at + (size_t)g * p->out.image + (size_t)c * (size_t)p->out.pitch;
            for (int y = 0; y < p->out.height; y++)
                for (int x = 0; x < p->out.width; x++) {
                    struct window w = {y * p->stride_y - p->top, x * p->stride_x - p->left};
                    out[y * p->out.width + x] = window(p, in, w);
                }
            activate(out, p->out.pitch, &p->act);
        }
}
