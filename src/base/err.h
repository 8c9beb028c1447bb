/* err.h: how a function says that it failed.
 *
 * What can fail returns an `err` by value: a code for the program and a sentence for the person.
 * The sentence names the thing ("model.safetensors: tensor lm_head.weight: ends 12 bytes past the
 * file"), so that whoever prints it needs to know nothing else. Success costs two stores; nothing
 * is allocated, nothing has to be freed, nothing is global.
 *
 *     err e = safetensors_open(path, &set);
 *     if (e.code) goto fail;              or, where there is nothing to release:
 * TRY(safetensors_open(path, &set));
 *
 * err is for the world: files, sockets, memory, users. A bug of ours is an assert. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define MUST_USE          __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

typedef enum err_code {
    ERR_NONE = 0,
    ERR_ARG,         /* the caller (in the end: the user) asked for something that makes no sense */
    ERR_NOT_FOUND,   /* a file, tensor, model or key that is not there */
    ERR_IO,          /* the system refused a read, write, map or thread */
    ERR_CORRUPT,     /* bytes that contradict themselves, their header or their checksum */
    ERR_UNSUPPORTED, /* well-formed, but something that this program does not implement */
    ERR_RANGE,       /* a number outside its bounds: id, position, context window */
    ERR_BUDGET,      /* the memory ceiling does not allow it */
    ERR_NOMEM,       /* the system has no memory left */
    ERR_BUSY,        /* somebody else holds it */
    ERR_CANCELLED,   /* the caller asked to stop */
} err_code;

#define ERR_TEXT_MAX 764

/* A longer sentence keeps its beginning and its end around " ... ": the cut is always visible. */
typedef struct err {
    err_code code;
    char text[ERR_TEXT_MAX];
} err;

/* Success. */
static inline err err_none(void) {
    err e;
    e.code = ERR_NONE;
    e.text[0] = '\0';
    return e;
}

/* A failure with its sentence (no final full stop or newline; control characters and what is not
 * UTF-8 become '?', so it is always safe to print and valid in JSON). */
err err_make(err_code code, const char *format, ...) PRINTF_LIKE(2, 3);

/* The same failure with a context in front: "context: text". */
err err_within(err inner, const char *format, ...) PRINTF_LIKE(2, 3);

/* A failed system call: "what: No such file or directory". Picks ERR_NOT_FOUND, ERR_NOMEM or ERR_IO
 * by errno_value. */
err err_system(int errno_value, const char *format, ...) PRINTF_LIKE(2, 3);

/* The code's name in lower case ("corrupt"), for JSON and logs. Static storage. */
const char *err_code_name(err_code code);

#define TRY(call)                                                                                  \
    do {                                                                                           \
        err try_result_ = (call);                                                                  \
        if (try_result_.code) return try_result_;                                                  \
    } while (0)

#endif
