/* test_rope.c: the frequencies against a twin in double precision, written from the papers'
 * formulas rather than from rope.c; hand-computed values; the edges of each scaling type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "model/rope.h"
#include "scratch.h"

#define HALF_MAX 128
#define TWO_PI   6.283185307179586

/* Radians per position of pair i. *slack: how far float32 may be off, relative to plain; a yarn
 * ramp between two close pairs magnifies the rounding of its ends. */
static double twin(const rope_config *r, int rot, int i, double *slack) {
    *slack = 4e-7;
    double plain = exp(-log(r->theta) * 2 * i / rot);
    double turns = r->original_context * plain / TWO_PI; /* over the trained length */
    double slow = plain / r->factor, t;
    switch (r->scaling) {
    case ROPE_LINEAR: return slow;
    case ROPE_LLAMA3:
        *slack += 1.2e-7 * 4 * fabs(1 - 1 / r->factor);
        t = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
        return t >= 1 ? plain : t <= 0 ? slow : slow + t * (plain - slow);
    case ROPE_YARN: {
        /* the pair index at which a wave makes `beta` turns: solve turns(i) = beta */
        double a = rot / 2.0 * log(r->original_context / (TWO_PI * r->beta_fast)) / log(r->theta);
        double b = rot / 2.0 * log(r->original_context / (TWO_PI * r->beta_slow)) / log(r->theta);
        if (r->truncate) a = floor(a), b = ceil(b);
        if (a < 0) a = 0;
        if (b > rot - 1) b = rot - 1;
        if (a == b) b += 0.001;
        t = (i - a) / (b - a);
        *slack += 1.2e-7 * (i + a) / fabs(b - a) * fabs(1 - 1 / r->factor);
        t = t < 0 ? 0 : t > 1 ? 1 : t;
        return plain + t * (slow - plain);
    }
    default: return plain;
    }
}

static void compare(const rope_config *r, int rot) {
    float got[HALF_MAX + 1], factor;
    got[rot / 2] = 7.0f;
    assert_ok(rope_frequencies(r, rot, r->original_context, got, &factor));
    assert_true(got[rot / 2] == 7.0f);
    for (int i = 0; i < rot / 2; i++) {
        double slack, want = twin(r, rot, i, &slack);
        double plain = exp(-log(r->theta) * 2 * i / rot);
        if (!(fabs((double)got[i] - want) <= slack * fmax(plain, want)))
            fail_msg("scaling %d rot %d pair %d: expected %.9g, found %.9g", (int)r->scaling, rot,
                     i, want, (double)got[i]);
    }
}

static rope_config base(rope_scaling scaling, double theta, double factor) {
    return (rope_config){.theta = theta,
                         .partial = 1,
                         .scaling = scaling,
                         .factor = factor,
                         .low_freq_factor = 1,
                         .high_freq_factor = 4,
                         .beta_fast = 32,
                         .beta_slow = 1,
                         .attention_factor = -1,
                         .truncate = true,
                         .original_context = 32768};
}

static void test_against_twin(void **state) {
    (void)state;
    static const int rots[] = {2, 4, 6, 8, 16, 64, 96, 128, 256};
    static const double thetas[] = {1.5, 100, 10000, 1e6, 1e7};
    static const double factors[] = {0.5, 1, 2, 4, 40};
    static const int lengths[] = {1, 64, 4096, 32768, 262144};
    for (int s = ROPE_DEFAULT; s <= ROPE_DYNAMIC; s++) {
        for (int n = 0; n < 9 * 5 * 5 * 5 * 2; n++) {
            rope_config r = base((rope_scaling)s, thetas[n / 9 % 5], factors[n / 45 % 5]);
            r.original_context = lengths[n / 225 % 5];
            r.truncate = n / 1125;
            compare(&r, rots[n % 9]);
        }
    }
}

/* Values worked out by hand. */
static void test_known(void **state) {
    (void)state;
    float f[4], factor;
    rope_config r = base(ROPE_DEFAULT, 10000, 1);
    assert_ok(rope_frequencies(&r, 8, 100, f, &factor));
    assert_true(f[0] == 1.0f && f[1] == 0.1f && f[2] == 0.01f && fabsf(f[3] - 0.001f) < 1e-10f);
    assert_true(factor == 1.0f);
    r = base(ROPE_LINEAR, 10000, 4);
    assert_ok(rope_frequencies(&r, 8, 100, f, &factor));
    assert_true(f[0] == 0.25f && factor == 1.0f);
    /* llama3, length 2048: turns 326, 32.6, 3.26, 0.326 for high 4 and low 1 */
    r = base(ROPE_LLAMA3, 10000, 8);
    r.original_context = 2048;
    assert_ok(rope_frequencies(&r, 8, 100, f, &factor));
    assert_true(f[0] == 1.0f && f[1] == 0.1f);
    assert_float_equal(f[2], 0.00784019, 1e-8); /* 0.01 * (t + (1 - t) / 8), t = 0.7531645 */
    assert_float_equal(f[3], 0.001 / 8, 1e-9);
}

static void test_attention_factor(void **state) {
    (void)state;
    static const struct {
        double given, factor, mscale, all_dim, want;
    } cases[] = {
        {-1, 4, 0, 0, 1.1386294361},
        {1.5, 4, 0, 0, 1.5},
        {0, 4, 0, 0, 0},
        {-1, 0.5, 0, 0, 1},
        {-1, 1, 0, 0, 1},
        {-1, 40, 1, 0, 1.3688879454},
        {-1, 40, 1, 1, 1},
        {-1, 40, 0, 1, 1.3688879454},
        {-1, 40, 0.5, 1, 1.1844439727 / 1.3688879454},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rope_config r = base(ROPE_YARN, 10000, cases[i].factor);
        r.attention_factor = cases[i].given;
        r.mscale = cases[i].mscale;
        r.mscale_all_dim = cases[i].all_dim;
        float f[32], factor;
        assert_ok(rope_frequencies(&r, 64, 1, f, &factor));
        assert_float_equal(factor, cases[i].want, 1e-6);
    }
}

static void test_dynamic(void **state) {
    (void)state;
    float plain[32], f[32], factor;
    rope_config r = base(ROPE_DEFAULT, 1e6, 1);
    assert_ok(rope_frequencies(&r, 64, 32768, plain, &factor));
    r = base(ROPE_DYNAMIC, 1e6, 4);
    assert_ok(rope_frequencies(&r, 64, 32768, f, &factor));
    assert_memory_equal(plain, f, sizeof f);
    assert_err(rope_frequencies(&r, 64, 32769, f, &factor), ERR_UNSUPPORTED, "\"dynamic\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_twin),
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_attention_factor),
        cmocka_unit_test(test_dynamic),
    };
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
