/* chat_impl.h: what the files of chat.h share. Not for others.
 *
 *     chat_load.c     finds and parses the templates, tries out what they can do
 *     chat.c          renders, encodes
 *     chat_replay.c   remembers replies and finds them again
 *     chat_memory.c   what is remembered, as bytes */
#ifndef TEXT_CHAT_IMPL_H
#define TEXT_CHAT_IMPL_H

#include <pthread.h>

#include "text/chat.h"
#include "text/template.h"

/* Marks of a rendering. */
enum {
    MARK_MARKUP = TEMPLATE_MARKUP,
    MARK_CONTENT = TEMPLATE_CONTENT,
    MARK_ASSISTANT = 2, /* from an assistant message */
    MARK_TAGGED = 3,    /* from the assistant message that ends the replayed part */
};

enum { CHAT_STOPS_MAX = 16, CHAT_ENTRIES_MAX = 1024 };

typedef struct chat_template {
    jinja_template *parsed; /* owned */
    bool wants_text;        /* arguments of calls as JSON text, not as an object */
    bool flat_content;      /* lists of text parts as one string */
    bool no_null;           /* content null as "" */
    bool developer;         /* knows that role */
} chat_template;

typedef struct chat_hash {
    uint64_t low, high;
} chat_hash;

/* One remembered timeline. */
typedef struct chat_entry {
    chat_hash key;
    uint64_t used; /* by age */
    int32_t *ids;  /* owned */
    size_t count;
    size_t skeleton_length; /* of the prompt's text, see chat_replay.c */
    uint64_t skeleton_hash;
} chat_entry;

struct chat {
    /* fixed after open */
    const tokenizer *tokens;
    chat_template plain, tools; /* tools.parsed is NULL when one template does both */
    json_t *specials;           /* object: bos_token ... */
    char *path;                 /* for messages */
    int32_t stops[CHAT_STOPS_MAX];
    int n_stops;
    size_t memory_bytes;

    /* under lock */
    pthread_mutex_t lock;
    chat_entry entries[CHAT_ENTRIES_MAX];
    int n_entries;
    size_t used_bytes;
    uint64_t clock;
};

/* chat_load.c */
err chat_load_templates(chat *c, const char *dir) MUST_USE;
void chat_try_out(chat *c, chat_template *t);

/* chat.c */
const chat_template *chat_template_for(const chat *c, const chat_request *r);
/* The messages as the template wants them; the caller's to release. */
err chat_messages(const chat_template *t, const json_t *messages, json_t **out) MUST_USE;
/* tagged: index of the message with MARK_TAGGED, or -1. */
err chat_render_text(const chat *c, const chat_request *r, int tagged, chat_prompt *out) MUST_USE;
bool chat_is_stop(const chat *c, int32_t id);

/* chat_replay.c */
/* Puts it into the memory; takes e->ids (then NULL) unless there is no room for it at all. */
void chat_keep_entry(chat *c, chat_entry *e);
/* Fills tokens from memory up to *from, a byte of the text; nothing and 0 when there is nothing.
 * Renders anew when it has to. */
err chat_replay(chat *c, const chat_request *r, chat_prompt *p, size_t *from) MUST_USE;

#endif
