/* cpu.c: which kernel tables exist here, and which of them this machine can run.
 *
 * An instruction set counts only if the system saves its registers too, so the questions go through
 * the compiler's own cpu test, which looks at XCR0; only bits that it cannot name on every compiler
 * are read from cpuid. */
#include "cpu/cpu.h"

#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "cpu/cpu_tables.h"

typedef struct entry {
    const char *name;
    const cpu_kernels *(*table)(void); /* NULL when not compiled in */
    bool (*runs)(void);
} entry;

static bool runs_always(void) { return true; }

#ifdef __x86_64__
#include <cpuid.h>

static bool runs_avx2(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return false;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool runs_avxvnni(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return runs_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

static bool runs_avx512(void) {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool runs_avx512vnni(void) {
    return runs_avx512() && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi");
}
static bool runs_avx512bf16(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return runs_avx512vnni() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5) &&
           cpu_checked_avx512_bf16();
}
#else
static bool runs_avx512bf16(void) { return false; }
static bool runs_avx512vnni(void) { return false; }
static bool runs_avx2(void) { return false; }
static bool runs_avxvnni(void) { return false; }
static bool runs_avx512(void) { return false; }
#endif

/* Slowest first. An avx512 without VNNI multiplies integers with AVX2. NEON is part of every 64-bit
 * ARM, so plain neon runs wherever it is compiled in. */
static const entry entries[] = {
    {"scalar", cpu_table_scalar, runs_always},
    {"avx2", cpu_table_avx2, runs_avx2},
    {"avxvnni", cpu_table_avxvnni, runs_avxvnni},
    {"avx512", cpu_table_avx512, runs_avx512},
    {"avx512vnni", cpu_table_avx512vnni, runs_avx512vnni},
    {"avx512bf16", cpu_table_avx512bf16, runs_avx512bf16},
    {"neon", cpu_table_neon, runs_always},
    {"neondot", cpu_table_neondot, os_cpu_has_dotprod},
    {"neonmm", cpu_table_neonmm, os_cpu_has_i8mm},
};

enum { N_ENTRIES = sizeof entries / sizeof *entries };

static bool usable(const entry *e) { return e->table() && e->runs(); }

const cpu_kernels *cpu_best(void) {
    int i = N_ENTRIES - 1;
    while (!usable(&entries[i])) i--;
    return entries[i].table();
}

const cpu_kernels *cpu_at(int i) {
    for (int k = 0; k < N_ENTRIES; k++) {
        if (usable(&entries[k]) && i-- == 0) return entries[k].table();
    }
    return NULL;
}

err cpu_by_name(const char *name, const cpu_kernels **out) {
    *out = NULL;
    char known[128] = "";
    size_t used = 0;
    for (int i = 0; i < N_ENTRIES; i++) {
        if (strcmp(name, entries[i].name) == 0) {
            if (!usable(&entries[i])) {
                return err_make(ERR_UNSUPPORTED, "this processor cannot run the %s kernels", name);
            }
            *out = entries[i].table();
            return err_none();
        }
        int n = snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", entries[i].name);
        used += (size_t)n;
    }
    return err_make(ERR_ARG, "no kernels are called '%s'; known are %s", name, known);
}
