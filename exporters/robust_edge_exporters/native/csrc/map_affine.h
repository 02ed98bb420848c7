/* out = act(scale * in + shift), one scale and shift for each channel, or feature of a vector; NULL: 1 and 0 */
static void map_affine(const struct job *j, const struct map *m) {
    const int floats = plane_floats(&m->out);
    struct range channels = share(m->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = map_planes(j, m, g, c);
            float scale = m->scale ? m->scale[c] : 1, shift = m->shift ? m->shift[c] : 0;
            for (int i = 0; i < floats; i++)
                p.out[i] = scale * p.in[i] + shift;
            if (m->out.pitch == 1)
                activate_one(p.out, &m->act);
            else
                activate(p.out, floats, &m->act);
        }
}
