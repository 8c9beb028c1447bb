/* port_engine.c: see port_engine.h. Prompts are text/chat.h's.
 *
 * A constraint is a grammar (text/grammar.h) that is active from the start (a forced call, a
 * response format), or sleeps until the model opens a call by itself: from there on only calls of
 * the request's tools can follow, their syntax picked greedily. */
#include "server/port_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/engine_impl.h"
#include "text/chat.h"
#include "text/grammar.h"

struct port_engine {
    port port;
    fm_engine *engine;
    grammar_vocab *vocab;
    chat *chat; /* NULL: no usable template */
    err trouble;
    int32_t call_token, close_thought; /* <tool_call>, </think>; -1: not one token */
};

/* ---- constraints ---- */

typedef struct constraint {
    grammar *grammar;
    grammar_state *state;
    bool asleep, thinking; /* asleep until call_token; thinking: it does not count yet */
    int32_t call_token, close_thought;
} constraint;

static void constraint_free(void *ctx) {
    constraint *c = ctx;
    grammar_state_close(c->state);
    grammar_close(c->grammar);
    free(c);
}

static err mask(void *ctx, uint64_t *allowed, bool *all, bool *greedy) {
    constraint *c = ctx;
    *all = c->asleep;
    *greedy = false;
    if (c->asleep) return err_none();
    if (!grammar_mask(c->state, allowed))
        return err_make(ERR_CORRUPT, "the answer's grammar allows no token");
    *greedy = grammar_greedy(c->state);
    return err_none();
}

static err accept(void *ctx, int32_t id) {
    constraint *c = ctx;
    if (!c->asleep) {
        /* Forced tokens (a closed thought, a script) may leave the grammar: it is over then. */
        if (!grammar_accept(c->state, id)) c->asleep = true, c->call_token = -1;
        return err_none();
    }
    if (id == c->close_thought) c->thinking = false;
    if (!c->thinking && id == c->call_token && c->call_token >= 0) c->asleep = false;
    return err_none();
}

static err constraint_make(const port_engine *p, const grammar_spec *spec, bool thinking,
                           sched_constraint *out) {
    constraint *c = calloc(1, sizeof *c);
    if (!c) return err_make(ERR_NOMEM, "no memory for a constraint");
    err e = grammar_compile(p->vocab, spec, &c->grammar);
    if (!e.code) e = grammar_state_open(c->grammar, &c->state);
    if (e.code) {
        constraint_free(c);
        return e.code == ERR_NOMEM ? e : err_make(ERR_ARG, "%s", e.text);
    }
    c->asleep = spec->after_opening;
    c->thinking = thinking;
    c->call_token = p->call_token;
    c->close_thought = p->close_thought;
    *out = (sched_constraint){c, mask, accept, constraint_free};
    return e;
}

static bool any_strict(const json_t *tools) {
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *f = json_object_get(json_array_get(tools, i), "function");
        if (json_is_true(json_object_get(f, "strict"))) return true;
    }
    return false;
}

static err constrain(void *ctx, const request *r, const port_prompt *prompt,
                     sched_constraint *out) {
    const port_engine *p = ctx;
    grammar_spec s = {.reasoning = prompt->reasoning == TOOLCALL_THINK_INSIDE,
                      .tools = r->tools,
                      .format = p->port.format,
                      .parallel = !r->one_call};
    if (r->format != FORMAT_TEXT) {
        s.kind = r->format == FORMAT_JSON ? GRAMMAR_JSON_OBJECT : GRAMMAR_JSON_SCHEMA;
        s.name = "response_format";
        s.schema = r->schema;
        return constraint_make(p, &s, s.reasoning, out);
    }
    if (!r->tools || r->choice == TOOL_NONE) return err_none();
    s.kind = GRAMMAR_TOOLS;
    s.name = "tools";
    if (r->choice == TOOL_REQUIRED || r->choice == TOOL_NAMED) {
        if (!p->port.format)
            return err_make(ERR_ARG, "tool_choice: this model's template has no calls");
        s.tool = r->choice == TOOL_NAMED ? r->choice_name : NULL;
        return constraint_make(p, &s, s.reasoning, out);
    }
    if (!p->port.format || p->call_token < 0) return err_none();
    bool thinking = s.reasoning; /* it wakes after the thought: the grammar has none */
    s.after_opening = true;
    s.reasoning = false;
    err e = constraint_make(p, &s, thinking, out);
    /* A schema that cannot be enforced is refused where it was promised; else the parser does. */
    return e.code == ERR_ARG && !any_strict(r->tools) ? err_none() : e;
}

/* ---- text ---- */

static err from_fm(fm_error e) {
    return e.code ? err_make((err_code)e.code, "%s", e.text) : err_none();
}

static err tokenize(void *ctx, fm_text_mode mode, const char *text, size_t length, fm_tokens *out) {
    return from_fm(fm_tokenize(((port_engine *)ctx)->engine, mode, text, length, out));
}

static const char *token_bytes(void *ctx, int32_t id, size_t *length) {
    return fm_token_bytes(((port_engine *)ctx)->engine, id, length);
}

/* ---- prompts ---- */

static chat_request chat_request_of(const request *r) {
    return (chat_request){.messages = r->messages,
                          .tools = r->choice == TOOL_NONE ? NULL : r->tools,
                          .kwargs = r->kwargs,
                          .add_generation_prompt = r->generation_prompt};
}

/* What a template refuses is the client's mistake. Where it lies is nobody's business there. */
static err for_client(const port_engine *p, err e) {
    if (e.code != ERR_ARG && e.code != ERR_CORRUPT && e.code != ERR_RANGE) return e;
    bool named =
        strncmp(e.text, "messages", 8) == 0 || strncmp(e.text, "chat_template_kwargs", 20) == 0;
    fm_model m;
    fm_model_get(p->engine, &m);
    size_t n = strlen(m.dir);
    const char *text = e.text;
    if (strncmp(text, m.dir, n) == 0 && text[n] == '/') text += n + 1;
    return err_make(ERR_ARG, "%s%s", named ? "" : "messages: the model's chat template: ", text);
}

enum { EVERY = 4096, LAST = 4 }; /* a multiple of 64: such marks change no bits */

/* Places worth a snapshot: where the first turn ends (the system prompt, the tools), the last few
 * turns, and every few thousand tokens. Each one ends a step of prefill, so not every border. */
static err pick_marks(const chat_prompt *c, port_prompt *out) {
    size_t n = c->tokens.count, next = EVERY;
    out->marks = calloc((size_t)c->n_borders + n / EVERY + 1, sizeof *out->marks);
    if (!out->marks) return err_make(ERR_NOMEM, "no memory for the prompt");
    for (int i = 0; i < c->n_borders; i++) {
        if (i > 0 && i + LAST < c->n_borders) continue;
        for (; next < c->borders[i]; next += EVERY) out->marks[out->n_marks++] = next;
        if (next == c->borders[i]) next += EVERY;
        out->marks[out->n_marks++] = c->borders[i];
    }
    return err_none();
}

static err render_request(void *ctx, const request *r, port_prompt *out) {
    const port_engine *p = ctx;
    if (!p->chat) return p->trouble;
    chat_request q = chat_request_of(r);
    chat_prompt c = {.text = NULL};
    err e = chat_render(p->chat, &q, &c);
    if (e.code) return for_client(p, e);
    if (c.tokens.count == 0) e = err_make(ERR_ARG, "messages: the prompt is empty");
    if (!e.code) e = pick_marks(&c, out);
    if (!e.code) {
        out->tokens = (fm_tokens){c.tokens.ids, c.tokens.count, c.tokens.capacity};
        out->text = c.text;
        out->length = c.length;
        out->text_marks = c.marks;
        out->replayed = c.replayed;
        out->reasoning = c.reasoning;
        c = (chat_prompt){.borders = c.borders};
    }
    chat_prompt_free(&c);
    return e;
}

/* Without memory the answer is encoded anew when it comes back. */
static void remember(void *ctx, const request *r, const port_prompt *p, const json_t *message,
                     const fm_tokens *ids) {
    const port_engine *e = ctx;
    chat_request q = chat_request_of(r);
    const chat_prompt c = {.text = p->text, .length = p->length, .marks = p->text_marks};
    err ignored = chat_remember(e->chat, &q, &c, message, ids->ids, ids->count);
    (void)ignored;
}

/* ---- replies on disk ---- */

#define REPLIES_BYTES ((size_t)8 << 20)

/* A conversation was written: so are the tokens of all replies, or it could not be found again by
 * what the client sends. */
static void write_replies(void *ctx) {
    port_engine *p = ctx;
    uint8_t *bytes;
    size_t n;
    err e = chat_memory_save(p->chat, REPLIES_BYTES, &bytes, &n);
    if (!e.code) engine_note_put(p->engine, bytes, n);
}

static void read_replies(port_engine *p, int vocab) {
    const uint8_t *bytes;
    size_t n;
    p->engine->kept = write_replies;
    p->engine->kept_ctx = p;
    if (!engine_note_get(p->engine, &bytes, &n)) return;
    err e = chat_memory_load(p->chat, vocab, bytes, n);
    engine_note_done(p->engine, e.code ? e.text : NULL);
}

/* ---- opening ---- */

/* generation_config.json says how the model's authors sample; without it plainly. */
static void sampling_defaults(const char *dir, fm_sampling *s) {
    char path[4096];
    fm_sampling_init(s);
    s->temperature = 1;
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    json_t *g = NULL;
    if (json_read_file(path, 1 << 20, &g).code || !json_is_object(g)) {
        json_decref(g);
        return;
    }
    const json_t *temperature = json_object_get(g, "temperature");
    const json_t *top_p = json_object_get(g, "top_p"), *top_k = json_object_get(g, "top_k");
    const json_t *min_p = json_object_get(g, "min_p");
    if (json_is_false(json_object_get(g, "do_sample"))) {
        s->temperature = 0;
    } else if (json_is_number(temperature)) {
        s->temperature = (float)json_number_value(temperature);
    }
    if (json_is_number(top_p) && json_number_value(top_p) > 0)
        s->top_p = (float)json_number_value(top_p);
    if (json_is_number(min_p)) s->min_p = (float)json_number_value(min_p);
    if (json_is_integer(top_k) && json_integer_value(top_k) > 0)
        s->top_k = (int)json_integer_value(top_k);
    json_decref(g);
}

#define ENDS_MAX 64

static int find_ends(const port_engine *p, int vocab, int32_t ends[ENDS_MAX]) {
    int n = 0;
    for (int32_t i = 0; i < vocab && n < ENDS_MAX; i++)
        if (fm_is_stop(p->engine, i)) ends[n++] = i;
    return n;
}

/* What a program says at its start of card and processor. */
static void tell_place(const fm_engine *e, const fm_model *m, port_place *out) {
    fm_plan p;
    fm_engine_plan(e, &p);
    *out = (port_place){.memory_limit = p.memory_limit};
    if (m->gpu) {
        out->vram_limit = p.vram_limit;
        out->vram_taken = m->gpu_bytes;
        snprintf(out->card, sizeof out->card, "%s", m->gpu);
        snprintf(out->layers, sizeof out->layers, "%s",
                 p.places[0] ? p.places : "all layers on the card");
    } else if (m->gpu_note) {
        snprintf(out->layers, sizeof out->layers, "the GPU is not used, the processor computes: %s",
                 m->gpu_note);
    } else {
        snprintf(out->layers, sizeof out->layers, "all layers on the processor");
    }
}

static err fill(port_engine *p, const char *id, int sessions) {
    fm_model m;
    fm_model_get(p->engine, &m);
    if (!m.tokenizer_size || !p->engine->files.tokens)
        return err_make(ERR_UNSUPPORTED, "%s: the checkpoint has no tokenizer.json", m.dir);
    int32_t ends[ENDS_MAX];
    int n = find_ends(p, m.vocab, ends);
    tokenizer *tokens = p->engine->files.tokens;
    TRY(grammar_vocab_open(tokens, m.vocab, ends, n, &p->vocab));
    const chat_options co = {.dir = m.dir, .tokens = tokens, .stop_ids = ends, .n_stop_ids = n};
    p->trouble = chat_open(&co, &p->chat);
    if (p->chat) read_replies(p, m.vocab);
    p->call_token = fm_token_find(p->engine, "<tool_call>");
    p->close_thought = fm_token_find(p->engine, "</think>");
    p->port = (port){.ctx = p,
                     .id = id,
                     .format = p->chat ? chat_format(p->chat) : NULL,
                     .trained_context = m.trained_context,
                     .render = render_request,
                     .constrain = constrain,
                     .tokenize = tokenize,
                     .token_bytes = token_bytes,
                     .remember = remember};
    tell_place(p->engine, &m, &p->port.place);
    sched_model_engine(p->engine, sessions, &p->port.engine);
    sampling_defaults(m.dir, &p->port.sampling);
    return err_none();
}

err port_engine_open(fm_engine *engine, const char *id, int sessions, port_engine **out) {
    *out = NULL;
    port_engine *p = calloc(1, sizeof *p);
    if (!p) return err_make(ERR_NOMEM, "no memory for the server");
    p->engine = engine;
    err e = fill(p, id, sessions);
    if (e.code) {
        port_engine_close(p);
        return e;
    }
    *out = p;
    return e;
}

void port_engine_close(port_engine *p) {
    if (!p) return;
    p->engine->kept = NULL;
    grammar_vocab_close(p->vocab);
    chat_close(p->chat);
    free(p);
}

void port_engine_sampling(port_engine *p, const fm_sampling *s) { p->port.sampling = *s; }

const port *port_engine_port(const port_engine *p) { return &p->port; }

const char *port_engine_trouble(const port_engine *p) { return p->chat ? NULL : p->trouble.text; }
