/* server_life.h: starting, finding again and ending the server process.
 *
 *     serve --background:  lock -> the one of server.pid still right? -> reuse it
 *                                                      outdated       -> end it, go on
 *                               -> port busy? -> offer the next free one
 *                               -> start in a session of its own -> wait until server.pid names it
 *
 * server.pid is written by the server itself after its own /health answered, and holds a signature
 * of what it was started with: program, model files, options. A server that a person started in a
 * terminal is never ended unless that is asked for; one that another home started is recognised by
 * its port and left alone. */
#ifndef FLASHCHAT_SERVER_LIFE_H
#define FLASHCHAT_SERVER_LIFE_H

#include "command.h"
#include "server_files.h"

typedef struct life_order {
    const char *program; /* in front of messages */
    const char *host;    /* NULL: 127.0.0.1 */
    const char *signature, *log_path;
    int port;
    bool tls, force, external;
    /* What the new process does until its end; returns its exit code. */
    int (*serve)(void *ctx, int port);
    void *ctx;
} life_order;

/* serve --stop: waits for the process to end and its port to close. An exit code. */
int life_stop(const life_order *o);
/* serve --background: an exit code; 0 when a server with this signature answers. */
int life_background(const life_order *o);
/* The port to listen on: o->port, or the next free one that the person agreed to when it is busy.
 * -1 after a message. */
int life_port(const life_order *o);

/* What a server is started with, as 16 hexadecimal digits: the program, the model's files, every
 * option of c but those that `life_stop` and friends use, and the key of the environment. */
void life_signature(const command *c, const void *args, const char *dir, char out[SIGNATURE_MAX]);
/* The signature that `flashchat serve` without words would have now (serve.c); false where the
 * settings do not lead to a model. */
bool serve_signature(char out[SIGNATURE_MAX]);

#endif
