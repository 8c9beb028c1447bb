/* sample_api.c: the two calls of the public sampler that speak of an engine and in fm_error; the
 * rest is in sample.c. */
#include "engine/fm_error.h"
#include "engine/sample.h"

fm_error fm_sampler_open(const fm_engine *e, const fm_sampling *p, fm_sampler **out) {
    fm_model m;
    fm_model_get(e, &m);
    return FM_WRAP(sampler_open(m.vocab, p, out));
}

fm_error fm_sampler_pick(fm_sampler *s, const float *logits, const uint64_t *allowed,
                         int32_t *out) {
    return FM_WRAP(sampler_pick(s, logits, allowed, out));
}
