static void map_mul(const struct job *j, const struct map *m) {
    const int floats = plane_floats(&m->out);
    struct range channels = share(m->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = map_planes(j, m, g, c);
            for (int i = 0; i < floats; i++)
                p.out[i] = p.in[i] * (m->broadcast ? *p.second : p.second[i]);
            activate(p.out, floats, &m->act);
        }
}
