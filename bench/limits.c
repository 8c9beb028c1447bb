/* limits.c: see limits.h. */
#include "limits.h"

#include "base/bits.h"
#include "base/os.h"
#include "engine/engine_impl.h"
#include "io/io_bench.h"

#define SIZE_TRIES 3

err limits_disk(const fm_engine *engine, int depth, double seconds, double *rate) {
    const expert_map *map = &engine->weights.experts;
    fm_plan p;
    fm_engine_plan(engine, &p);
    io_bench_options o = {.backend = expert_store_backend(engine->store),
                          .paths = map->paths,
                          .n_files = map->n_files,
                          .block = (uint32_t)round_up(p.expert_bytes, IO_ALIGN),
                          .depth = depth,
                          .total_bytes = UINT64_MAX,
                          .max_seconds = seconds,
                          .seed = os_now_ns()};
    io_bench_result r;
    *rate = 0;
    TRY(io_bench(&o, &r));
    *rate = r.bytes_per_second;
    return err_none();
}

fm_error limits_memory(fm_options *o, double share, size_t more) {
    fm_plan p;
    o->memory = (size_t)1 << 40;
    fm_error e = fm_plan_get(o, &p);
    size_t wish = (size_t)(share * (double)p.experts_total) + more;
    o->memory = p.trunk + p.kv + p.state + p.scratch + p.other + wish;
    for (int i = 0; i < SIZE_TRIES && !e.code; i++) { /* scratch depends on the ceiling */
        e = fm_plan_get(o, &p);
        if (p.fits && !p.resident) o->memory += wish - p.cache;
    }
    return e;
}
