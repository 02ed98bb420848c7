/* Element-wise operators over the channels of a thread. */
struct planes {
    const float *in, *second;
    float *out;
};

static struct planes map_planes(const struct job *j, const struct map *m, int g, int channel) {
    float *arena = j->context->arena;
    struct planes p;
    size_t c = (size_t)channel, i = (size_t)g;
    p.in = arena + m->in.at + i * m->in.image + c * (size_t)m->in.pitch;
    p.second = arena + m->second.at + i * m->second.image + c * (size_t)m->second.pitch;
    p.out = arena + m->out.at + i * m->out.image + c * (size_t)m->out.pitch;
    return p;
}
