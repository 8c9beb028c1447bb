/* pack_api.c: packing and verifying, as the public API has them. */
#include <stdio.h>
#include <string.h>

#include "engine/engine_impl.h"
#include "engine/pack.h"
#include "format/bank.h"

void fm_pack_options_init(fm_pack_options *o) { *o = (fm_pack_options){.bits = 4, .group = 64}; }

fm_error fm_pack(const fm_pack_options *o, fm_pack_report *out) {
    pack_options options = {.model_dir = o->model_dir,
                            .out_dir = o->out_dir,
                            .bits = o->bits,
                            .group = o->group,
                            .threads = o->threads,
                            .dry_run = o->dry_run,
                            .progress = o->progress,
                            .progress_ctx = o->progress_ctx};
    pack_report report;
    err e = pack_model(&options, &report);
    memcpy(out->out_dir, report.out_dir, sizeof out->out_dir);
    out->relaid = report.relaid;
    out->complete_before = report.complete_before;
    out->layers = report.layers;
    out->layers_before = report.layers_before;
    out->experts_bytes = report.experts_bytes;
    out->trunk_bytes = report.trunk_bytes;
    out->written = report.written;
    return fm_error_from(&e);
}

/* Everything that can be checked without checksums: headers, sizes, that the tensors fit
 * config.json, that the tokenizer can be read. */
static err verify_plain(const char *dir) {
    model_files m;
    TRY(model_files_open(dir, &m));
    weights w = {0};
    err e = weights_measure(&m.config, m.set, &w);
    weights_close(&w);
    model_files_close(&m);
    return e;
}

fm_error fm_verify(const char *model_dir, bool deep, fm_progress progress, void *ctx,
                   bool *packed) {
    bank_check check = {.deep = deep, .progress = progress, .ctx = ctx};
    bool is_bank = bank_is(model_dir);
    if (packed) *packed = is_bank;
    err e = verify_plain(model_dir);
    if (!e.code && is_bank) e = bank_verify(model_dir, &check);
    return fm_error_from(&e);
}
