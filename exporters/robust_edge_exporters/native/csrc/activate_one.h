static void activate_one(float *x, const struct activation *a) {
    float unit[UNIT] = {0};
    unit[0] = *x;
    activate(unit, UNIT, a);
    *x = unit[0];
}
