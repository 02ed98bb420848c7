/* Rows of the weight matrix are padded to whole units; what lies behind a vector is not read, it may be a NaN of before. */
static void linear_dense(const struct job *j, const struct linear *l) {
    const re_context *ctx = j->context;
    const value *values = value_section(ctx, l->values);
    const float *bias = float_section(ctx, l->bias);
    int padded = (l->inputs + UNIT - 1) / UNIT * UNIT;
    struct range rows = share(l->outputs, j->thread, j->threads);
    for (int o = rows.begin; o < rows.end; o++)
        for (int g = 0; g < j->images; g++) {
            const float *in = ctx->arena + l->in + (size_t)g * l->in_image;
            const value *w = values + (size_t)o * (size_t)padded;
            vec sum[UNIT_VECTORS];
            float lanes[UNIT], y = bias[o];
            int k = 0;
            for (int v = 0; v < UNIT_VECTORS; v++)
                sum[v] = splat(0);
            for (; k + UNIT <= l->inputs; k += UNIT)
                for (int v = 0; v < UNIT_VECTORS; v++)
                    sum[v] += load_values(w + k + v * LANES) * load(in + k + v * LANES);
            memcpy(lanes, sum, sizeof lanes);
            for (int i = 0; i < UNIT; i++)
                y += lanes[i];
            for (; k < l->inputs; k++)
                y += number(w[k]) * in[k];
            activate_one(&y, &l->act);
            ctx->arena[l->out + (size_t)g * l->out_image + (size_t)o] = y;
        }
}
