static void linear_sparse(const struct job *j, const struct linear *l) {
    const re_context *ctx = j->context;
    const value *values = value_section(ctx, l->values);
    const float *bias = float_section(ctx, l->bias);
    const uint16_t *offsets = ctx->offsets + l->offsets;
    const uint32_t *starts = ctx->starts + l->starts;
    struct range rows = share(l->outputs, j->thread, j->threads);
    for (int o = rows.begin; o < rows.end; o++)
        for (int g = 0; g < j->images; g++) {
            const float *in = ctx->arena + l->in + (size_t)g * l->in_image;
            float sum[4] = {bias[o], 0, 0, 0}, y;
            uint32_t k = starts[o], end = starts[o + 1];
            for (; k + 4 <= end; k += 4)
                for (int i = 0; i < 4; i++)
                    sum[i] += number(values[k + (uint32_t)i]) * in[offsets[k + (uint32_t)i]];
            for (; k < end; k++)
                sum[0] += number(values[k]) * in[offsets[k]];
            y = (sum[0] + sum[1]) + (sum[2] + sum[3]);
            activate_one(&y, &l->act);
            ctx->arena[l->out + (size_t)g * l->out_image + (size_t)o] = y;
        }
}
