/* engine_rig.h: what the tests of an engine share: the golden checkpoints that they take, a check,
 * tokens. Include after cmocka.h. */
#ifndef TESTS_ENGINE_RIG_H
#define TESTS_ENGINE_RIG_H

#include <stdint.h>

#include "flashmoe.h"
#include "scratch.h"

#define MIB    ((size_t)1 << 20)
#define HYBRID "qwen3_5_moe_mlx4"
#define PLAIN  "qwen3_moe_mlx4"

/* ThreadSanitizer cannot follow the many stacks of a processor that plays a GPU. */
#if defined(__SANITIZE_THREAD__)
#define THREADS_WATCHED true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREADS_WATCHED true
#endif
#endif
#ifndef THREADS_WATCHED
#define THREADS_WATCHED false
#endif

static inline void ok(fm_error e) {
    if (e.code) fail_msg("%s", e.text);
}

/* Of the golden checkpoints' vocabulary. */
static inline void make_tokens(int32_t *out, int n, uint64_t seed) {
    for (int i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        out[i] = (int32_t)(seed >> 33) % 320;
    }
}

#endif
