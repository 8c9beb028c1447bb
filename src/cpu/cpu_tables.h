/* cpu_tables.h: the kernel tables as cpu.c sees them; private to this folder.
 *
 * A file of an instruction set that the compiler is not building for is empty but for its function,
 * which returns NULL. Whether the machine can run a table is decided in cpu.c. */
#ifndef CPU_CPU_TABLES_H
#define CPU_CPU_TABLES_H

#include "cpu/cpu.h"

/* The integer path is compiled apart, for more of the instructions that it can use. */
#define INT_KERNELS(isa)                                                                           \
    void cpu_quantize_##isa(const cpu_actq *a, int t, const float *x);                             \
    void cpu_matmul_int_##isa(const cpu_matmul_int *m, int row_begin, int row_end);

/* BF16 matrices: the definition, and instructions for them. */
#define BF16_KERNELS(isa)                                                                          \
    void cpu_round_bf16_##isa(const cpu_actb *a, int t, const float *x);                           \
    void cpu_matmul_bf16_##isa(const cpu_matmul_bf16 *m, int row_begin, int row_end);

BF16_KERNELS(scalar)
BF16_KERNELS(avx512bf16)
/* Whether the instructions round as the definition does: else they are not used. */
bool cpu_checked_avx512_bf16(void);

/* Row t of a->split from a->q. */
void cpu_actq_split(const cpu_actq *a, int t);

INT_KERNELS(scalar)
INT_KERNELS(avx2)
INT_KERNELS(avxvnni)
INT_KERNELS(avx512vnni)
INT_KERNELS(neon)
INT_KERNELS(neondot)
INT_KERNELS(neonmm)

const cpu_kernels *cpu_table_scalar(void);
const cpu_kernels *cpu_table_avx2(void);
const cpu_kernels *cpu_table_avxvnni(void);
const cpu_kernels *cpu_table_avx512(void);
const cpu_kernels *cpu_table_avx512vnni(void);
const cpu_kernels *cpu_table_avx512bf16(void);
const cpu_kernels *cpu_table_neon(void);
const cpu_kernels *cpu_table_neondot(void);
const cpu_kernels *cpu_table_neonmm(void);

#endif
