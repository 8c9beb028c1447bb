/* test_gpu_layout.c: where an expert's parts lie in a slot of the card and how many copies bring
 * them: one where the store has them at distances that kernels can load from, one more where they
 * come from two files, a copy for each part where experts of a layer differ; the bytes arrive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above first */
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "model/gpu_ops_impl.h"
#include "store/record.h"

#define EXPERTS 3
#define ROWS    128
#define COLS    256
#define STRIDE  16384
#define SLOT    (256 << 10)

static const uint32_t sizes[EXPERT_PARTS_MAX] = {16384, 2048,  2048, 16384, 2048,
                                                 2048,  16384, 2048, 2048};
static expert_part parts[EXPERTS * EXPERT_PARTS_MAX];
static layer_weights layer;
static model_config config = {.layers = 1};
static weights w;

/* Part i of expert x at base[i] + x * STRIDE of its file. */
static void make(const int64_t *base, const int *file) {
    qformat format = {.kind = QK_AFFINE, .bits = 4, .group = 32};
    qmat m = {.format = format, .rows = ROWS, .cols = COLS};
    layer = (layer_weights){.expert = {.gate = m, .up = m, .down = m}};
    for (int x = 0; x < EXPERTS; x++)
        for (int i = 0; i < EXPERT_PARTS_MAX; i++)
            parts[x * EXPERT_PARTS_MAX + i] =
                (expert_part){base[i] + x * (int64_t)STRIDE, sizes[i], file[i]};
    w = (weights){
        .config = &config,
        .layers = &layer,
        .experts = {
            .n_layers = 1, .n_experts = EXPERTS, .n_parts = EXPERT_PARTS_MAX, .parts = parts}};
}

static uint8_t card[SLOT], host[SLOT];
static int n_copies;

static err copy(gpu_ops *o, gpu_addr to, uint8_t *from, size_t bytes) {
    (void)o;
    assert_true(to + bytes <= SLOT);
    assert_int_equal(to % 16, 0);
    memcpy(card + to, from, bytes);
    n_copies++;
    return err_none();
}

/* Every expert as the store has it, with its parts' numbers for bytes. */
static void copy_one(const expert_layout *l, int x, uint32_t align) {
    uint8_t *part[EXPERT_PARTS_MAX];
    record r;
    record_make(parts + x * EXPERT_PARTS_MAX, EXPERT_PARTS_MAX, align, &r);
    memset(host, 0xee, SLOT);
    memset(card, 0xdd, SLOT);
    for (int i = 0; i < EXPERT_PARTS_MAX; i++) {
        part[i] = host + r.part[i];
        memset(part[i], 10 * x + i, parts[i].bytes);
    }
    n_copies = 0;
    assert_int_equal(gpu_layout_copy(NULL, l, 0, part, copy).code, ERR_NONE);
    for (int i = 0; i < EXPERT_PARTS_MAX; i++) {
        uint32_t bytes = parts[i].bytes;
        assert_int_equal(l->bytes[i], bytes);
        for (uint32_t b = 0; b < bytes; b++) assert_int_equal(card[l->at[i] + b], 10 * x + i);
    }
}

/* Returns the copies of an expert. */
static int copies(uint32_t align) {
    gpu_tier t;
    assert_int_equal(gpu_tier_measure(&w, &t).code, ERR_NONE);
    const expert_layout *l = &t.layouts[0];
    const gpu_part *matrices[3] = {&l->gate, &l->up, &l->down};
    size_t copied = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(matrices[i]->w, l->at[3 * i]);
        assert_int_equal(matrices[i]->scales, l->at[3 * i + 1]);
        assert_int_equal(matrices[i]->biases, l->at[3 * i + 2]);
    }
    for (int k = 0; k < l->n_pieces; k++) copied += l->pieces[k].bytes;
    assert_int_equal(copied, l->copied);
    assert_true(l->total <= t.slot_bytes);
    for (int x = 0; x < EXPERTS; x++) copy_one(l, x, align);
    int n = n_copies;
    free(t.layouts);
    return n;
}

static const int one_file[EXPERT_PARTS_MAX] = {0};
static const int two_files[EXPERT_PARTS_MAX] = {0, 0, 0, 0, 0, 1, 1, 1, 1};

/* Tensors of a whole layer's experts, each after the other, as published models have them. */
static void stacked(int64_t *base, int64_t second) {
    for (int i = 0; i < EXPERT_PARTS_MAX; i++)
        base[i] = 40 + (i < 5 ? 0 : second) + (int64_t)i * (1 << 16);
}

static void test_one_file(void **state) {
    (void)state;
    int64_t base[EXPERT_PARTS_MAX];
    stacked(base, 0);
    for (int i = 0; i < EXPERT_PARTS_MAX; i++) base[i] += 16 * i;
    make(base, one_file);
    assert_int_equal(copies(RECORD_ALIGN_LEAST), 1);
    /* A store with room for all begins each with a page. */
    assert_int_equal(copies(RECORD_ALIGN_MOST), EXPERT_PARTS_MAX);
}

static void test_two_files(void **state) {
    (void)state;
    int64_t base[EXPERT_PARTS_MAX];
    for (int second = 4; second < 64; second += 4) {
        stacked(base, second);
        make(base, two_files);
        assert_int_equal(copies(RECORD_ALIGN_LEAST), second % 16 ? 2 : 1);
    }
}

/* Packed: one part behind the other. */
static void test_packed(void **state) {
    (void)state;
    int64_t base[EXPERT_PARTS_MAX] = {0};
    for (int i = 1; i < EXPERT_PARTS_MAX; i++) base[i] = base[i - 1] + sizes[i - 1];
    make(base, one_file);
    assert_int_equal(copies(RECORD_ALIGN_LEAST), 1);
}

/* Parts so small that the gaps would be most of a slot. */
static void test_small(void **state) {
    (void)state;
    int64_t base[EXPERT_PARTS_MAX];
    stacked(base, 0);
    make(base, one_file);
    for (int i = 0; i < EXPERTS * EXPERT_PARTS_MAX; i++) parts[i].bytes /= 8;
    layer.expert.gate.rows = layer.expert.up.rows = layer.expert.down.rows = ROWS / 8;
    assert_int_equal(copies(RECORD_ALIGN_LEAST), EXPERT_PARTS_MAX);
}

/* The distance between parts changes from expert to expert. */
static void test_not_alike(void **state) {
    (void)state;
    int64_t base[EXPERT_PARTS_MAX];
    stacked(base, 0);
    make(base, one_file);
    parts[2 * EXPERT_PARTS_MAX + 4].offset += 16;
    assert_int_equal(copies(RECORD_ALIGN_LEAST), EXPERT_PARTS_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_file),  cmocka_unit_test(test_two_files),
        cmocka_unit_test(test_packed),    cmocka_unit_test(test_small),
        cmocka_unit_test(test_not_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
