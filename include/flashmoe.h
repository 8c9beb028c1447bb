/* flashmoe.h: the public API of libflashmoe, the engine of flashchat.
 *
 * It runs Mixture-of-Experts language models that are larger than the machine's memory: the dense
 * trunk stays resident, the routed experts are read from the checkpoint as the router picks them,
 * all under one memory ceiling.
 *
 *     fm_options o;
 *     fm_options_init(&o);
 *     o.model_dir = "assets/ember";
 *     fm_engine *engine;
 *     fm_error e = fm_engine_open(&o, &engine);
 *     if (e.code) { fprintf(stderr, "%s\n", e.text); return 1; }
 *     fm_session *session;                     one conversation: a timeline of tokens
 *     fm_session_open(engine, &session);
 *     fm_tokens prompt = {0};
 *     fm_tokenize(engine, FM_MARKUP, text, strlen(text), &prompt);
 *     fm_session_sync(session, prompt.ids, prompt.count, NULL, NULL);   what is new
 *     fm_sampler *sampler;
 *     fm_sampler_open(engine, &params, &sampler);
 *     for (;;) {
 *         int32_t id;
 *         fm_session_pick(session, sampler, NULL, &id);
 *         if (fm_is_stop(engine, id)) break;
 *         ... fm_token_bytes(engine, id, &length) ...
 *         fm_session_step(session, id);
 *     }
 *
 * Conventions: every call that can fail returns fm_error; code 0 is success, otherwise text is one
 * sentence that names the file, tensor, field or number at fault, without a final full stop. Out
 * pointers are NULL or zero on failure. Sizes in bytes unless said otherwise; text is UTF-8 with an
 * explicit length.
 *
 * Threads: one engine belongs to one thread at a time (it drives its own worker and reader
 * threads). fm_tokenize, fm_token_bytes, fm_token_find, fm_is_stop and fm_model_get may be called
 * from any thread while the engine is open. fm_cancel may be called from any thread and from a
 * signal handler. */
#ifndef FLASHMOE_H
#define FLASHMOE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FM_API     __attribute__((visibility("default")))
#define FM_VERSION "0.1.0"

typedef enum fm_code {
    FM_OK = 0,
    FM_ERR_ARG,         /* the request makes no sense */
    FM_ERR_NOT_FOUND,   /* a file, tensor or model that is not there */
    FM_ERR_IO,          /* the system refused a read, map or thread */
    FM_ERR_CORRUPT,     /* bytes that contradict themselves */
    FM_ERR_UNSUPPORTED, /* well-formed, but not implemented here */
    FM_ERR_RANGE,       /* a number outside its bounds (context window, token id) */
    FM_ERR_BUDGET,      /* the memory ceiling is too small; text has the numbers */
    FM_ERR_NOMEM,
    FM_ERR_BUSY,
    FM_ERR_CANCELLED,
} fm_code;

typedef struct fm_error {
    fm_code code;
    char text[764];
} fm_error;

/* ---- opening ------------------------------------------------------------ */

typedef struct fm_engine fm_engine;
typedef struct fm_session fm_session;

/* what: "loading", "prefill" ...; done of total in tokens or bytes. Called from the engine's
 * thread. */
typedef void (*fm_progress)(void *ctx, const char *what, uint64_t done, uint64_t total);

/* Numbers of the attention cache. Q8: 8 bits and a scale of 16 for each 32 of them, 53 % of F16's
 * bytes; lossy (docs/MEASURED.md), and FM_ERR_UNSUPPORTED unless heads have a multiple of 32. */
typedef enum fm_kv { FM_KV_DEFAULT, FM_KV_F32, FM_KV_F16, FM_KV_Q8 } fm_kv;

typedef struct fm_options {
    const char *model_dir; /* a Hugging Face snapshot directory; must be set */
    size_t memory; /* ceiling on everything, bytes; 0: three quarters of what machine and cgroup
                      allow */
    int threads;   /* 0: one per processor */
    int context;   /* context window in tokens; 0: the model's own, at most 32,768 and what memory
                      allows */
    int sessions;  /* sessions that can be open at once; 0: 1 */
    int experts_per_token; /* 0: as trained; fewer is lossy, more is refused */
    bool exact;            /* float32 activations everywhere and an F32 KV cache: the definition */
    const char *cpu;       /* "scalar", "avx2", "avx512", "neon"; NULL: the best this machine has */
    fm_kv kv;
    /* Rotary frequencies rounded to BF16: what a reference computes that was cast to BF16 as a
     * whole (its buffers too). For comparing with such results only; checkpoints are trained
     * without. */
    bool rope_bf16;
    int io_threads; /* 0: a good default */
    const char
        *mirror_dir; /* the checkpoint's files again, on a second drive: reads are split; NULL */
    const char *io_state; /* file that remembers how this drive is read best; NULL: a default */
    bool keep_prompts;    /* set memory aside for fm_prompt_cache_open: at most a sixteenth */
    bool no_look_ahead; /* do not read ahead what the next layer may want; never changes results */
    bool no_checksums;  /* do not compare a packed model's experts with their checksums as they are
                           read */
    /* Folder in which running engines note what they may take (made when it is not there; its
     * parent must exist): one more whose ceiling does not fit beside the others' is FM_ERR_BUSY,
     * with their numbers, unless `force`. NULL: nobody looks. */
    const char *lock_dir;
    bool force;
    /* "auto" or NULL: a CUDA card or Apple's GPU when this machine and this build have one, unless
     * `exact` or `cpu` ask for the processor; "off"; "cuda", "cuda:1"; "metal"; "host": the GPU's
     * kernels run by the processor, slow, for tests. A card that is named and cannot be used is an
     * error. One whose memory is too small for the whole trunk gets as many layers as fit, the
     * processor the others; the results are those of any other placement but for rounding. */
    const char *gpu;
    /* A GPU that shares the processor's memory (Apple's): are experts computed while others are
     * being read? "on", "off"; "auto" or NULL measures both during the first tokens. Results do not
     * depend on it. */
    const char *overlap;
    /* A card of its own memory: experts that it misses and that are in the computer's memory may be
     * computed there meanwhile, as many as are quicker so. Tokens are as likely as before, but the
     * last bits of the logits then depend on memory and time: not for comparisons. */
    bool cpu_experts;
    size_t vram;          /* ceiling on the card's memory, bytes; 0: most of what is free */
    fm_progress progress; /* may be NULL */
    void *progress_ctx;
    /* A sentence that a person should read: which card is not used and why, how the layers are
     * shared, at the end of opening; later, that the card was lost and the processor goes on: the
     * sessions' states are computed anew from their tokens, so the request takes longer and gets
     * the processor's answer. From the engine's thread; may be NULL (fm_model_get says the same).
     */
    void (*notice)(void *ctx, const char *text);
    void *notice_ctx;
} fm_options;

FM_API void fm_options_init(fm_options *o);

/* What a model needs and could reach. Bytes. */
typedef struct fm_plan {
    size_t memory_limit, trunk, kv, state, scratch, other;
    size_t floor;              /* the least memory that works with this context */
    size_t cache;              /* what is left for experts */
    size_t experts_total;      /* all experts on disk */
    size_t expert_bytes;       /* one expert */
    size_t expert_bytes_token; /* experts that one token touches, all layers */
    size_t trunk_bytes_token;  /* trunk that one token touches */
    size_t state_bytes_token;  /* recurrent state that one token reads and writes, both counted */
    int context, layers, experts, experts_per_token, sparse_layers;
    fm_kv kv_type; /* what the numbers of `kv` are; never FM_KV_DEFAULT */
    bool fits;     /* floor <= memory_limit */
    bool resident; /* every expert fits (on the card or in memory): nothing is read once warm */
    /* A card with memory of its own computes card_layers of the layers: their share of the trunk,
     * attention cache, recurrent state and intermediate results are there and not in trunk, kv,
     * state and scratch. Fewer than all: what did not fit is the processor's; `places` says which
     * ("embedding and layers 0-11 on the processor, layers 12-47 and the head on the card"). */
    bool card, vram_fits;
    bool shared; /* the processor has some of it */
    int card_layers;
    char places[256];
    size_t vram_limit, vram_trunk, vram_kv, vram_state, vram_scratch;
    size_t vram_cache; /* experts that live on the card, and a few that pass through */
    int vram_slots;    /* how many */
} fm_plan;

/* Reads headers and config only; no weights. Works (fits = false) when the limit is too small. */
FM_API fm_error fm_plan_get(const fm_options *o, fm_plan *out);

FM_API fm_error fm_engine_open(const fm_options *o, fm_engine **out);
/* Closes sessions that are still open; NULL is allowed. */
FM_API void fm_engine_close(fm_engine *e);

typedef struct fm_model {
    const char *architecture; /* owned by the engine */
    const char *dir;          /* owned by the engine */
    int layers, hidden, vocab, experts, experts_per_token, trained_experts_per_token, context,
        trained_context;
    int tokenizer_size; /* 0: the checkpoint has no tokenizer, only ids work */
    const char *cpu;    /* kernel table in use */
    int threads;
    const char *gpu; /* the card that computes, owned by the engine; NULL: the processor does */
    const char *gpu_note; /* why a card that is there is not used, or no longer; NULL */
    size_t gpu_bytes;     /* of the card's memory that was taken */
    int gpu_slots;        /* experts that it holds at once */
    const char *places;   /* which layers are where, when card and processor share them; NULL */
} fm_model;

FM_API void fm_model_get(const fm_engine *e, fm_model *out);
/* What the engine took, for reports. */
FM_API void fm_engine_plan(const fm_engine *e, fm_plan *out);

/* Ends the running sync at the next layer: it returns FM_ERR_CANCELLED and its session stays valid
 * with a shorter timeline. A step of a few tokens runs to its end; the next call is cancelled.
 * Async-signal-safe. Stays set until fm_cancel_clear. */
FM_API void fm_cancel(fm_engine *e);
FM_API void fm_cancel_clear(fm_engine *e);

/* ---- text --------------------------------------------------------------- */

typedef struct fm_tokens { /* zero-initialise; fm_tokens_free */
    int32_t *ids;
    size_t count, capacity;
} fm_tokens;

typedef enum fm_text_mode {
    FM_CONTENT, /* text of people and tools: never becomes a special token, whatever it spells */
    FM_MARKUP,  /* special tokens are recognised */
} fm_text_mode;

/* Appends the tokens of text to out; on failure out is as before. */
FM_API fm_error fm_tokenize(const fm_engine *e, fm_text_mode mode, const char *text, size_t length,
                            fm_tokens *out);
FM_API fm_error fm_tokens_push(fm_tokens *t, int32_t id);
FM_API void fm_tokens_free(fm_tokens *t);
/* The bytes of one token: part of a character at times. Owned by the engine. NULL outside the
 * vocabulary. */
FM_API const char *fm_token_bytes(const fm_engine *e, int32_t id, size_t *length);
/* Ends a reply: end-of-sequence ids of generation_config.json, else config.json. */
FM_API bool fm_is_stop(const fm_engine *e, int32_t id);
/* The id that exactly this text has as one token, or -1. */
FM_API int32_t fm_token_find(const fm_engine *e, const char *text);

/* Bytes in, whole characters out. Zero-initialise. */
typedef struct fm_utf8 {
    unsigned char held[4];
    int n_held;
} fm_utf8;

/* out needs room for 3 * length + 9 bytes; returns how many were written (not terminated). What can
 * never become a character turns into U+FFFD. fm_utf8_end flushes. */
FM_API size_t fm_utf8_push(fm_utf8 *s, const char *bytes, size_t length, char *out);
FM_API size_t fm_utf8_end(fm_utf8 *s, char *out);

/* ---- sessions ----------------------------------------------------------- */

/* FM_ERR_BUSY when options.sessions are open already. */
FM_API fm_error fm_session_open(fm_engine *e, fm_session **out);
FM_API void fm_session_close(fm_session *s);

typedef struct fm_sync {
    const size_t *marks; /* ascending positions where a snapshot is worth keeping: message borders;
                            may be NULL */
    int n_marks;
    fm_progress progress; /* may be NULL */
    void *progress_ctx;
} fm_sync;

/* Makes the session's timeline exactly tokens[0 .. count): keeps the longest prefix that it has
 * state for, computes the rest in chunks. Afterwards fm_session_logits are those after the last
 * token. options may be NULL. *reused (may be NULL): tokens that were not computed again. count
 * >= 1. FM_ERR_RANGE when it does not fit the context window (with the numbers), or for an id
 * outside the vocabulary. On failure the session keeps a valid, shorter timeline. */
FM_API fm_error fm_session_sync(fm_session *s, const int32_t *tokens, size_t count,
                                const fm_sync *options, size_t *reused);
/* Goes back to the longest prefix of tokens that the session has state for, so that the rest can be
 * appended by fm_step; computes nothing. *kept: its length, count only when the logits stand too.
 */
FM_API fm_error fm_session_match(fm_session *s, const int32_t *tokens, size_t count, size_t *kept);
/* Remembers the present place, as a mark of fm_sync does: the session can come back to it. The
 * oldest such place is forgotten when there are too many. */
FM_API fm_error fm_session_mark(fm_session *s);

/* Appends one token. */
FM_API fm_error fm_session_step(fm_session *s, int32_t token);

/* One row of a step of several sessions at once: one read of an expert serves all of them. */
typedef struct fm_item {
    fm_session *session; /* each at most once */
    const int32_t *tokens;
    int count; /* >= 1; all counts together at most fm_rows_max */
} fm_item;

/* Appends to every session; each one's logits are those after its last token. The same bits as
 * alone. On failure the sessions of the call keep a valid timeline, at most as long as before. */
FM_API fm_error fm_step(fm_engine *e, const fm_item *items, int n);
/* A multiple of 64. A long prompt that is handed over in pieces gives the bits of fm_session_sync
 * when the pieces end at multiples of 64 (counted from the session's first token). */
FM_API int fm_rows_max(const fm_engine *e);

/* [vocab] floats, owned by the session until its next sync or step; NULL before the first, or when
 * a graphics card is lost that they would have to be read from. Cost: on a card that copy. */
FM_API const float *fm_session_logits(const fm_session *s);
FM_API size_t fm_session_length(const fm_session *s);
FM_API const int32_t *fm_session_tokens(const fm_session *s);
FM_API void fm_session_clear(fm_session *s);

/* The whole state (tokens, attention cache up to them, recurrent state, logits) as bytes: returns
 * how many; nothing is written when capacity is smaller. Restoring is exact: the continuation has
 * the same bits. A blob of another model, option set or build is FM_ERR_CORRUPT and the session is
 * cleared. */
FM_API size_t fm_session_save(const fm_session *s, void *out, size_t capacity);
FM_API fm_error fm_session_restore(fm_session *s, const void *blob, size_t length);

/* ---- prompts on disk ---------------------------------------------------- */

/* Saved sessions in a folder: beginnings that many prompts share (a system prompt, tools) are
 * computed once, also over restarts. While it is open, fm_session_sync and fm_session_match look
 * there too, and every place that is remembered (marks, the end of a prompt) is offered to it. */
typedef struct fm_prompt_cache_options { /* zero-initialise */
    const char *dir;                     /* NULL: MODEL_DIR/flashchat/prompt_cache */
    const char *fallback_dir;            /* used when that cannot be written; NULL: none */
    uint64_t bytes;                      /* of all files; 0: 4 GiB */
    int entries;                         /* 0: 16; the one unused for longest goes */
    int min_tokens;                      /* shorter beginnings are not kept; 0: 256 */
    int step; /* one that continues a kept one must be so much longer; 0: 2048 */
    /* What was ignored, removed or not written, and why. Any thread. May be NULL. */
    void (*log)(void *ctx, const char *line);
    void *log_ctx;
} fm_prompt_cache_options;

/* Open until the engine closes, which finishes writing. Needs options.keep_prompts (FM_ERR_BUDGET).
 * FM_ERR_IO: the folder cannot be written. A damaged or foreign file in it is never used. Files are
 * readable by their owner only: they hold what was said. */
FM_API fm_error fm_prompt_cache_open(fm_engine *e, const fm_prompt_cache_options *o);
/* Offers a conversation as it stands now, after an answer: one file for each conversation, which
 * the next answer's replaces. Copies the state; it is written in the background. Does nothing
 * without a prompt cache, or when it would hardly save anything. */
FM_API void fm_session_keep(fm_session *s);
/* Waits until everything that was offered is written. */
FM_API void fm_prompt_cache_flush(fm_engine *e);

/* ---- conversations ------------------------------------------------------ */

/* A model's own chat template: conversations to prompts. Needs no weights. Any thread may use it.
 */
typedef struct fm_chat fm_chat;

/* Reads template, tokenizer and config of the directory. FM_ERR_NOT_FOUND: the model has no
 * template and can only continue text. */
FM_API fm_error fm_chat_open(const char *model_dir, fm_chat **out);
FM_API void fm_chat_close(fm_chat *c);

typedef struct fm_chat_request { /* JSON texts, zero-terminated, borrowed during the call */
    const char *messages;        /* list of OpenAI messages */
    const char *tools;           /* list, or NULL */
    const char *kwargs; /* object of further variables: {"enable_thinking": false}, or NULL */
    bool no_generation_prompt; /* stop behind the last message instead of where a reply begins */
} fm_chat_request;

typedef enum fm_thinking {
    FM_THINK_NONE,    /* the model has no think blocks */
    FM_THINK_OUTSIDE, /* the reply may open one */
    FM_THINK_INSIDE,  /* the prompt ends inside one */
} fm_thinking;

typedef struct fm_prompt { /* zero-initialise; fm_prompt_free */
    fm_tokens tokens;
    char *text; /* what the template wrote, zero-terminated; for people: in the tokens, what users
                   and tools say never becomes a special token */
    size_t text_length;
    size_t *borders; /* token counts at which turns end, ascending: good places for snapshots */
    int n_borders;
    size_t replayed; /* of the tokens, how many are those of an earlier turn (fm_chat_remember) */
    fm_thinking thinking;
} fm_prompt;

/* FM_ERR_ARG: not valid JSON, a field of the wrong type, or a conversation that the template
 * refuses, in the template's words. *out is replaced. */
FM_API fm_error fm_chat_render(fm_chat *c, const fm_chat_request *r, fm_prompt *out);
FM_API void fm_prompt_free(fm_prompt *p);

/* A reply to r is complete: ids are the prompt's (as fm_chat_render gave it for r) and all that was
 * sampled, message is the assistant message (JSON) as it will come back. From then on conversations
 * that begin so have exactly these tokens, so that the engine can go on from them. */
FM_API fm_error fm_chat_remember(fm_chat *c, const fm_chat_request *r, const char *message,
                                 const int32_t *ids, size_t count);
/* The template names this variable (enable_thinking, reasoning_effort ...). */
FM_API bool fm_chat_knows(const fm_chat *c, const char *variable);

/* What a reply says: {"reasoning_content": text or null, "content": text or null, "tool_calls":
 * [{"name", "arguments": JSON text, "cut": bool}]} as JSON, for free(). tools as in a request, or
 * NULL; format "qwen3-coder", "hermes" or "minimax", NULL for the template's own. */
FM_API fm_error fm_chat_parse(const fm_chat *c, const char *format, const char *tools,
                              fm_thinking thinking, const char *reply, char **out);

/* The same while it is being written: what is certain is shown at once, calls and think tags are
 * not. One thread. */
typedef struct fm_reply fm_reply;
typedef void (*fm_reply_show)(void *ctx, bool thought, const char *text, size_t length);

/* c must outlive the reply; tools is borrowed during the call. */
FM_API fm_error fm_reply_open(const fm_chat *c, const char *tools, fm_thinking thinking,
                              fm_reply_show show, void *ctx, fm_reply **out);
/* Whole characters, in any pieces. */
FM_API fm_error fm_reply_push(fm_reply *r, const char *text, size_t length);
/* The reply is over: shows what was held back. *message as of fm_chat_parse, for free(). */
FM_API fm_error fm_reply_end(fm_reply *r, char **message);
FM_API void fm_reply_close(fm_reply *r);

/* ---- sampling ----------------------------------------------------------- */

/* Order: repetition, presence and frequency penalties over the generated tokens; temperature;
 * top-k; top-p; min-p; draw. temperature 0 is greedy (lowest id wins a tie). The same seed gives
 * the same tokens on every platform. */
typedef struct fm_sampling {
    float temperature;        /* 0: greedy */
    int top_k;                /* 0: off */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 1: off */
    float presence_penalty, frequency_penalty;
    uint64_t seed;
    bool penalize_prompt; /* tokens told with fm_sampler_accept before the first pick count too */
} fm_sampling;

typedef struct fm_sampler fm_sampler;

FM_API void fm_sampling_init(fm_sampling *p); /* greedy */
/* FM_ERR_ARG names the field that is out of range. */
FM_API fm_error fm_sampler_open(const fm_engine *e, const fm_sampling *p, fm_sampler **out);
FM_API void fm_sampler_close(fm_sampler *s);
/* Picks a token and remembers it for the penalties. logits [vocab] are not changed. allowed: bit
 * set of ids (64 a word), or NULL for all: constrained decoding. FM_ERR_ARG when nothing is
 * allowed, FM_ERR_CORRUPT for a NaN logit. */
FM_API fm_error fm_sampler_pick(fm_sampler *s, const float *logits, const uint64_t *allowed,
                                int32_t *out);
/* The same token from the session's logits, FM_ERR_ARG when there are none. On a graphics card the
 * logits need not be read for it: greedy, and top_k up to 128, with or without penalties and masks,
 * as far as the card's 128 highest decide. */
FM_API fm_error fm_session_pick(fm_session *s, fm_sampler *sampler, const uint64_t *allowed,
                                int32_t *out);
/* Tells a token that was not picked here. */
FM_API void fm_sampler_accept(fm_sampler *s, int32_t id);

/* ---- packing ------------------------------------------------------------ */

/* Writes the model again so that one read brings one expert: experts/layer_NN.bank, trunk.bin and a
 * manifest, a directory that opens like any model. A quantised source (MLX) keeps every value;
 * BF16, F16 and F32 are quantised: experts to `bits`, the other matrices to 8. Killed at any
 * moment, the next call goes on at the layer that it was on and ends with the same bytes. Needs
 * some hundred megabytes of memory at most. */
typedef struct fm_pack_options {
    const char *model_dir;
    const char *out_dir;  /* NULL: MODEL_DIR/flashchat/q<bits> */
    int bits;             /* 4 or 8 */
    int group;            /* 32, 64 or 128 */
    int threads;          /* 0: one per processor, 8 where nothing is quantised; at most 8 */
    bool dry_run;         /* only fills the report */
    fm_progress progress; /* bytes of the result; may be NULL */
    void *progress_ctx;
} fm_pack_options;

typedef struct fm_pack_report {
    char out_dir[4096];
    bool relaid;               /* no value was changed */
    bool complete_before;      /* it was packed already */
    int layers, layers_before; /* files of experts; of these there before */
    uint64_t experts_bytes, trunk_bytes, written;
} fm_pack_report;

FM_API void fm_pack_options_init(fm_pack_options *o); /* 4 bits in groups of 64 */
/* FM_ERR_BUDGET when the disk is too small (before anything is written), FM_ERR_BUSY when somebody
 * packs into the same directory. */
FM_API fm_error fm_pack(const fm_pack_options *o, fm_pack_report *out);

/* Checks a model's files: of a packed one sizes and checksums, with `deep` those of every expert
 * and tensor; of any other one headers and sizes only. FM_ERR_CORRUPT names the first bad file and
 * what in it is bad. *packed (may be NULL): which of the two it was. */
FM_API fm_error fm_verify(const char *model_dir, bool deep, fm_progress progress, void *ctx,
                          bool *packed);

/* ---- counters ----------------------------------------------------------- */

typedef struct fm_stats { /* since open or fm_stats_reset */
    uint64_t tokens_prefill, tokens_decode;
    double seconds_prefill, seconds_decode;
    uint64_t expert_requests, expert_hits, expert_misses, expert_evictions, expert_read_bytes;
    double seconds_read_wait;
    uint64_t prefetch_issued, prefetch_used;
    uint64_t prompts_found, prompts_saved, prompts_refused, prompts_bytes; /* on disk */
    /* On a GPU, requests and hits count the steps in which the processor saw the router's choice:
     * none once all experts are on the card. */
    uint64_t gpu_uploads, gpu_upload_bytes; /* experts copied to the card */
    uint64_t gpu_guesses, gpu_guesses_used; /* of those: before their layer asked; asked for then */
    uint64_t gpu_promotions, gpu_download_bytes; /* that changed places with one of the card's */
    uint64_t gpu_on_cpu;                         /* experts that the processor computed instead */
    uint64_t gpu_launches;                       /* kernels, graphs not counted */
    uint64_t gpu_steps, gpu_graph_steps;         /* the latter: one launch */
    bool gpu_lost;                               /* and the processor goes on; never reset */
    size_t memory_peak;                          /* of the process */
} fm_stats;

FM_API void fm_stats_get(const fm_engine *e, fm_stats *out);
FM_API void fm_stats_reset(fm_engine *e);

/* Seconds per kind of work since the last reset, for `infer --timing`. */
typedef struct fm_layer_timing {
    double attention, delta, router, read_wait, experts, other;
    uint64_t read_bytes;
} fm_layer_timing;

FM_API void fm_timing_enable(fm_engine *e, bool on);
/* Fills at most n entries (one per layer) and returns the number of layers. */
FM_API int fm_timing_get(const fm_engine *e, fm_layer_timing *out, int n);

/* Called for every token row of every sparse layer with the experts chosen (ids [k], in the
 * router's order): for recording traces and counting. NULL switches it off. */
typedef void (*fm_routing_hook)(void *ctx, int layer, int row, const int *ids, const float *weights,
                                int k);
FM_API void fm_routing_hook_set(fm_engine *e, fm_routing_hook hook, void *ctx);

/* Puts other experts in the router's place (ids [k], distinct, each below the number of experts)
 * and returns true; false leaves the router's choice. For replaying a recorded trace, so that
 * experiments with reads repeat exactly. Called for the rows of a layer in order. NULL switches it
 * off. FM_ERR_NOMEM: a card needs a little memory for it. */
typedef bool (*fm_routing_force)(void *ctx, int layer, int row, int *ids, int k);
/* The same from a file of routing lines, as `infer --collect-routing` writes it; row by row, from
 * the start again at its end. NULL ends it. FM_ERR_ARG when the trace does not fit the model. */
FM_API fm_error fm_routing_replay(fm_engine *e, const char *path);
FM_API fm_error fm_routing_force_set(fm_engine *e, fm_routing_force force, void *ctx);

/* ---- the machine -------------------------------------------------------- */

/* Bytes a second, measured just now: the limits that a speed is to be compared with. */
typedef struct fm_machine {
    double memory_read; /* summing memory that is no cache's, by `threads` threads */
    double disk_read;   /* blocks of the largest model file, past the page cache where allowed */
    bool disk_direct; /* false: the file system has no direct reads, so the cache may have helped */
    int threads;
} fm_machine;

/* threads 0: one per processor. model_dir NULL: memory only. Takes about `seconds` for each of the
 * two and up to 512 MiB while it runs. */
FM_API fm_error fm_machine_measure(const char *model_dir, int threads, double seconds,
                                   fm_machine *out);

/* Bytes a second of the same sums over blocks of so many bytes (at least 64) at random places of 1
 * GiB, or of a quarter of the free memory where that is less: what can be had of matrices that lie
 * where they happen to, as experts do. *rate is 0 on error. */
FM_API fm_error fm_machine_measure_blocks(int threads, size_t block, double seconds, double *rate);

#ifdef __cplusplus
}
#endif
#endif
