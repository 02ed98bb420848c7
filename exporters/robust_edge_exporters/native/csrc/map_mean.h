/* Mean of each plane. */
static void map_mean(const struct job *j, const struct map *m) {
    struct range channels = share(m->out.channels, j->thread, j->threads);
    int pixels = m->in.height * m->in.width;
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = map_planes(j, m, g, c);
            float lanes[UNIT] = {0}, sum = 0;
            int i = 0;
            for (; i + UNIT <= pixels; i += UNIT)
                for (int k = 0; k < UNIT; k++)
                    lanes[k] += p.in[i + k];
            for (int k = 0; k < UNIT; k++)
                sum += lanes[k];
            for (; i < pixels; i++)
                sum += p.in[i];
            *p.out = sum / (float)pixels;
            activate_one(p.out, &m->act);
        }
}
