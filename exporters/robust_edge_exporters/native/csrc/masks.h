/* Lane masks of a layer: all ones where a shifted column (and row, for whole planes) is inside the input. */
static void make_masks(const struct conv *c, uint32_t *mask) {
    int width = c->out.width;
    for (int s = 0; s < c->copies; s++)
        for (int i = 0; i < c->copy_floats; i++, mask++) {
            int x = i % width * c->stride_x + c->shifts[s].dx, y = i / width * c->stride_y + c->shifts[s].dy;
            int inside = x >= 0 && x < c->in.width;
            if (c->whole)
                inside = inside && y >= 0 && y < c->in.height && i < c->out.height * width;
            *mask = inside ? 0xffffffffu : 0;
        }
}
