/* The first and the last operator: between the caller's contiguous arrays and the arena. */
static void read_input(const struct job *j, const struct map *m) {
    int pixels = m->out.height * m->out.width;
    struct range channels = share(m->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            const float *in = j->in + ((size_t)g * (size_t)m->out.channels + (size_t)c) * (size_t)pixels;
            float *out = map_planes(j, m, g, c).out, scale = m->scale ? m->scale[c] : 1;
            float shift = m->shift ? m->shift[c] : 0;
            for (int i = 0; i < pixels; i++)
                out[i] = scale * in[i] + shift;
            activate(out, plane_floats(&m->out), &m->act);
        }
}

static void write_output(const struct job *j, const struct map *m) {
    size_t pixels = (size_t)m->in.height * (size_t)m->in.width, outputs = (size_t)m->in.channels * pixels;
    if (j->thread != 0)
        return;
    for (int g = 0; g < j->images; g++)
        for (int c = 0; c < m->in.channels; c++)
            memcpy(j->out + (size_t)g * outputs + (size_t)c * pixels, map_planes(j, m, g, c).in, pixels * sizeof(float));
}
