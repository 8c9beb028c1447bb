/* chatml.c: see chatml.h.
 *
 *     <|im_start|>system\n...<|im_end|>\n
 *     <|im_start|>user\n...<|im_end|>\n          <- mark: stays when the answer is known
 *     <|im_start|>assistant\n<think>\n\n</think>\n\n       the model goes on from here
 *
 * An answer that became history is written without its thought, as the models' own templates do;
 * the mark before it is where the engine can go on from. */
#include "chatml.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMPLATE_MAX ((size_t)4 << 20)

/* Does DIR/name contain needle? */
static bool file_mentions(const char *dir, const char *name, const char *needle) {
    char path[4096 + 64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    char *text = malloc(TEMPLATE_MAX + 1);
    size_t n = text ? fread(text, 1, TEMPLATE_MAX, f) : 0;
    fclose(f);
    bool found = n && memmem(text, n, needle, strlen(needle));
    free(text);
    return found;
}

/* Templates of models that can think or not ask for enable_thinking. */
static bool chooses_to_think(const char *dir) {
    return file_mentions(dir, "chat_template.jinja", "enable_thinking") ||
           file_mentions(dir, "tokenizer_config.json", "enable_thinking");
}

static fm_error markup(const fm_engine *e, const char *text, fm_tokens *out) {
    return fm_tokenize(e, FM_MARKUP, text, strlen(text), out);
}

static fm_error message(const fm_engine *e, const chat_message *m, fm_tokens *out) {
    char head[64];
    snprintf(head, sizeof head, "<|im_start|>%s\n", m->role);
    const char *text = m->text;
    size_t length = m->length;
    while (length && isspace((unsigned char)text[0])) text++, length--;
    while (length && isspace((unsigned char)text[length - 1])) length--;
    fm_error error = markup(e, head, out);
    if (!error.code) error = fm_tokenize(e, FM_CONTENT, text, length, out);
    if (!error.code) error = markup(e, "<|im_end|>\n", out);
    return error;
}

fm_error chatml_render(const fm_engine *e, const char *dir, const chat_message *messages, int n,
                       bool think, chatml_prompt *out) {
    fm_error error = {FM_OK, ""};
    out->tokens.count = 0;
    out->n_marks = 0;
    for (int i = 0; i < n && !error.code; i++) {
        error = message(e, &messages[i], &out->tokens);
        if (error.code) break;
        if (out->n_marks == CHAT_MARKS_MAX) { /* the oldest borders matter least */
            memmove(out->marks, out->marks + 1, sizeof out->marks - sizeof out->marks[0]);
            out->n_marks--;
        }
        out->marks[out->n_marks++] = out->tokens.count;
    }
    if (!error.code) error = markup(e, "<|im_start|>assistant\n", &out->tokens);
    out->thinking = think;
    if (!error.code && think) error = markup(e, "<think>\n", &out->tokens);
    if (!error.code && !think && chooses_to_think(dir))
        error = markup(e, "<think>\n\n</think>\n\n", &out->tokens);
    return error;
}

void chatml_prompt_free(chatml_prompt *p) { fm_tokens_free(&p->tokens); }
