/* openai_completions.c: reading the requests of POST /v1/completions: text goes on, no chat. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "server/fields.h"

#define REQUEST(f) offsetof(request, f)

static bool is_ids(const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_integer(json_array_get(list, i))) return false;
    return json_array_size(list) > 0;
}

/* A string, a list of strings, a list of token ids, or a list of lists of token ids. */
static err read_prompt(const char *name, json_t *value, request *r) {
    if (json_is_string(value) || is_ids(value)) {
        r->prompts = json_pack("[O]", value);
    } else if (json_is_array(value)) {
        r->prompts = json_incref(value);
    } else {
        return field_wrong(name, "a string, a list of strings or a list of token ids", value);
    }
    size_t n = json_array_size(r->prompts);
    if (n < 1 || n > REQUEST_CHOICES_MAX)
        return err_make(ERR_ARG, "%s: must be 1 to %d prompts", name, REQUEST_CHOICES_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_array_get(r->prompts, i);
        if (!json_is_string(p) && !(json_is_array(p) && is_ids(p)))
            return err_make(ERR_ARG, "%s[%zu]: must be a string or a list of token ids", name, i);
    }
    return err_none();
}

static err read_logprobs(const char *name, json_t *value, request *r) {
    TRY(field_int(name, value, 0, SCHED_TOP_MAX, &r->top_logprobs));
    r->logprobs = true;
    return err_none();
}

const field completion_fields[] = {
    {.name = "prompt", .read = read_prompt},
    {.name = "max_tokens", FIELD_INT, REQUEST(max_tokens), 1, INT32_MAX},
    {.name = "logprobs", .read = read_logprobs},
    {.name = "echo", FIELD_BOOL, REQUEST(echo)},
    {.name = "best_of", FIELD_ONLY, .why = "[1]"},
    {.name = "suffix", FIELD_REFUSED, .why = "text cannot be filled in between; only continued"},
    {.more = openai_fields}};

err parse_completions(request *r) {
    r->max_tokens = 16; /* as documented by OpenAI */
    TRY(fields_read(completion_fields, r->body, "", r));
    if (!r->prompts) return err_make(ERR_ARG, "prompt: is missing");
    if ((int64_t)json_array_size(r->prompts) * r->n > REQUEST_CHOICES_MAX)
        return err_make(ERR_ARG, "n: prompts times n must be at most %d", REQUEST_CHOICES_MAX);
    if (r->echo && r->logprobs)
        return err_make(ERR_ARG, "echo: logprobs of the prompt are not available");
    return err_none();
}
