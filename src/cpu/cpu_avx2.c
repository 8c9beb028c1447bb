/* cpu_avx2.c: the float32 kernels for x86-64 with AVX2, FMA and F16C. */
#include "cpu/cpu_tables.h"

const cpu_kernels *cpu_table_avx2(void) { return NULL; }
