/* render.c: see render.h. */
#include "render.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../common/model.h"

#define FILE_BYTES_MAX ((size_t)64 << 20)

static int complain(const char *what, const char *why) {
    fprintf(stderr, "infer: %s: %s\n", what, why);
    return EXIT_FAILED;
}

/* The whole file, zero-terminated, for free(); NULL after a sentence. */
static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    char *text = f ? malloc(FILE_BYTES_MAX + 1) : NULL;
    size_t n = text ? fread(text, 1, FILE_BYTES_MAX, f) : 0;
    bool whole = f && text && !ferror(f) && fgetc(f) == EOF;
    if (!whole) complain(path, f && text ? "cannot be read, or is too large" : strerror(errno));
    if (f) fclose(f);
    if (!whole) {
        free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

/* request[key] as JSON text, for free(); NULL when it is missing. */
static char *part(const json_t *request, const char *key) {
    const json_t *value = json_object_get(request, key);
    return value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
}

static int write_file(const char *dir, const char *name, const char *bytes, size_t length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    bool good = f && fwrite(bytes, 1, length, f) == length;
    good = f && fclose(f) == 0 && good;
    return good ? 0 : complain(path, strerror(errno));
}

static int write_tokens(const char *dir, const fm_tokens *tokens) {
    size_t room = tokens->count * 12 + 1, n = 0;
    char *text = malloc(room);
    if (!text) return complain(dir, "no memory");
    for (size_t i = 0; i < tokens->count; i++) {
        n += (size_t)snprintf(text + n, room - n, "%d\n", tokens->ids[i]);
    }
    int code = write_file(dir, "tokens.txt", text, n);
    free(text);
    return code;
}

static int write_counts(const char *dir, const fm_prompt *p) {
    static const char *const thinking[] = {"none", "outside", "inside"};
    char text[400];
    int n = snprintf(text, sizeof text,
                     "{\n  \"prompt_bytes\": %zu,\n  \"prompt_tokens\": %zu,\n  \"turns\": %d,\n  "
                     "\"thinking\": \"%s\"\n}\n",
                     p->text_length, p->tokens.count, p->n_borders, thinking[p->thinking]);
    return write_file(dir, "counts.json", text, (size_t)n);
}

static int write_prompt(const char *output, const fm_prompt *p) {
    if (mkdir(output, 0777) != 0 && errno != EEXIST) return complain(output, strerror(errno));
    int code = write_file(output, "prompt.txt", p->text, p->text_length);
    if (!code) code = write_tokens(output, &p->tokens);
    if (!code) code = write_counts(output, p);
    if (!code) printf("%zu tokens, %zu bytes in %s\n", p->tokens.count, p->text_length, output);
    return code;
}

static json_t *load(const char *file, const char *text) {
    json_error_t why;
    json_t *request = json_loads(text, 0, &why);
    if (!request) fprintf(stderr, "infer: %s: line %d: %s\n", file, why.line, why.text);
    return request;
}

int render_request(const char *model_dir, const char *file, const char *output) {
    char *text = read_file(file);
    json_t *request = text ? load(file, text) : NULL;
    free(text);
    if (!request) return EXIT_FAILED;
    char *messages = part(request, "messages"), *tools = part(request, "tools");
    char *kwargs = part(request, "chat_template_kwargs");
    json_decref(request);
    fm_chat *chat;
    fm_prompt p = {.text = NULL};
    const fm_chat_request r = {.messages = messages, .tools = tools, .kwargs = kwargs};
    fm_error e = fm_chat_open(model_dir, &chat);
    if (!e.code) e = fm_chat_render(chat, &r, &p);
    int code = e.code ? complain(file, e.text) : write_prompt(output, &p);
    fm_prompt_free(&p);
    fm_chat_close(chat);
    free(messages);
    free(tools);
    free(kwargs);
    return code;
}

int parse_tool_call(const char *model_dir, const char *file) {
    char *text = read_file(file), *tools = NULL, *out = NULL;
    if (!text) return EXIT_FAILED;
    json_t *request = text[strspn(text, " \r\n\t")] == '{' ? json_loads(text, 0, NULL) : NULL;
    const char *reply = json_string_value(json_object_get(request, "text"));
    const char *format = json_string_value(json_object_get(request, "format"));
    bool thinking = json_is_true(json_object_get(request, "thinking"));
    if (reply) tools = part(request, "tools");
    fm_chat *chat;
    fm_error e = fm_chat_open(model_dir, &chat);
    if (!e.code) {
        e = fm_chat_parse(chat, reply ? format : NULL, tools,
                          thinking ? FM_THINK_INSIDE : FM_THINK_OUTSIDE, reply ? reply : text,
                          &out);
    }
    if (!e.code) printf("%s\n", out);
    int code = e.code ? complain(file, e.text) : 0;
    free(out);
    free(tools);
    fm_chat_close(chat);
    json_decref(request);
    free(text);
    return code;
}
