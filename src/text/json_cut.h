/* json_cut.h: takes the two big values out of a tokenizer.json.
 *
 * "model": {"vocab": {...}, "merges": [...]} make 99 % of a file of 10 to 30 MB, and are the
 * simplest thing in it. As a tree of the JSON library they cost 0.4 s and 75 MB at every start
 * (Qwen3's file; Zen 3). So these two are cut out and read in place by a small strict reader, and
 * the library gets all the rest, with {} and [] where they were. */
#ifndef TEXT_JSON_CUT_H
#define TEXT_JSON_CUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/buffer.h"

/* A place in JSON text. */
typedef struct json_reader {
    const char *name;  /* borrowed, for messages */
    const char *begin; /* of the whole file, for places in messages */
    const char *at, *end;
} json_reader;

typedef struct json_cut {
    json_t *rest;              /* owned by the caller: json_decref */
    json_reader vocab, merges; /* at == NULL: not there, or not an object / a list */
} json_cut;

/* bytes must stay until the readers are done. */
err json_cut_open(const char *name, const char *bytes, size_t length, json_cut *out) MUST_USE;

/* Each reads one thing after white space, or returns ERR_CORRUPT with the place. */
err json_reader_expect(json_reader *r, char c) MUST_USE;
/* In a list or object: *more false at its end, which is consumed. first: nothing was read yet, so
 * there is no comma before the next one. */
err json_reader_more(json_reader *r, char close, bool first, bool *more) MUST_USE;
/* Replaces out's content by the string, its escapes resolved: valid UTF-8 without zero bytes. */
err json_reader_string(json_reader *r, text_buffer *out) MUST_USE;
/* A whole number 0 .. 2^31-1. */
err json_reader_id(json_reader *r, int32_t *out) MUST_USE;
/* The next byte that is not white space, 0 at the end. Consumes the white space. */
char json_reader_peek(json_reader *r);

#endif
