/* Fills one output row from an input plane. */
typedef void pool_row(const struct pool *, const float *plane, int y, float *out);

static void pool_planes(const struct job *j, const struct pool *p, pool_row *row) {
    float *arena = j->context->arena;
    struct range planes = share(p->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = planes.begin; c < planes.end; c++) {
            const float *in = arena + p->in.at + (size_t)g * p->in.image + (size_t)c * (size_t)p->in.pitch;
            float *out = arena + p->out.at + (size_t)g * p->out.image + (size_t)c * (size_t)p->out.pitch;
            for (int y = 0; y < p->out.height; y++)
                row(p, in, y, out + y * p->out.width);
            activate(out, plane_floats(&p->out), &p->act);
        }
}
