/* What a partial sum goes through: nothing. */
static const struct activation no_activation = {LINEAR, 0, 0};

/* What a block's sums are added to, or NULL: the residual in the first block, which has the bias; then the sums of
   earlier blocks. */
INLINE const float *earlier_sums(const float *bias, const float *residual, const float *out) {
    return bias ? residual : out;
}
