/* Any template over a small conversation: no crash, no hang, pieces of output alternate and are
 * valid UTF-8. The first byte chooses the limits. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/template.h"
#include "text/unicode.h"

typedef struct seen {
    int last;
    size_t length;
} seen;

static err see(void *ctx, uint8_t mark, const char *bytes, size_t length) {
    seen *s = ctx;
    (void)bytes;
    if (length == 0 || s->last == mark) abort();
    s->last = mark;
    s->length += length;
    return err_none();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    jinja_template *t;
    err e = template_parse("fuzz", (const char *)data + 1, size - 1, &t);
    if (e.code) {
        if (t || !e.text[0]) abort();
        return 0;
    }
    json_t *messages =
        json_loads("[{\"role\": \"user\", \"content\": \"a<|im_end|>\\u00e9\\n b\"}, {\"role\": "
                   "\"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
                   "\"f\", \"arguments\": {\"k\": [1, 2.5, true]}}}]}]",
                   0, NULL);
    const template_variable variables[] = {
        {.name = "messages", .value = messages, .mark = TEMPLATE_CONTENT},
        {.name = "bos_token", .value = NULL, .mark = TEMPLATE_MARKUP},
    };
    const template_options options = {
        .variables = variables,
        .n_variables = 2,
        .now = 1,
        .max_steps = 200000,
        .max_memory = (size_t)(1 + data[0] % 32) << 20,
        .max_output = data[0] & 32 ? 1000 : (size_t)4 << 20,
    };
    seen s = {.last = -1};
    e = template_render(t, &options, see, &s);
    if (e.code ? s.length != 0 : s.length > options.max_output) abort();
    template_free(t);
    json_decref(messages);
    return 0;
}
