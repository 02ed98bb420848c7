/* Copies planes to another place or pitch: concatenation, flattening. */
static void map_copy(const struct job *j, const struct map *m) {
    struct range channels = share(m->in.channels, j->thread, j->threads);
    size_t bytes = (size_t)m->in.height * (size_t)m->in.width * sizeof(float);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = map_planes(j, m, g, c);
            memcpy(p.out, p.in, bytes);
        }
}
