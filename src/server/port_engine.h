/* port_engine.h: the server's port of a real engine: its tokenizer, its own chat template, its
 * grammar masks, its sessions. */
#ifndef SERVER_PORT_ENGINE_H
#define SERVER_PORT_ENGINE_H

#include "server/port.h"

typedef struct port_engine port_engine;

/* engine and id are borrowed until close; sessions are those that the engine was opened for. Reads
 * the chat template and the sampling defaults from the model's directory (a model without a
 * template can only complete text). ERR_UNSUPPORTED: no tokenizer. */
err port_engine_open(fm_engine *engine, const char *id, int sessions, port_engine **out) MUST_USE;
void port_engine_close(port_engine *p);
/* Valid until close. */
const port *port_engine_port(const port_engine *p);
/* What a request gets that says nothing about sampling. Before the server is opened. */
void port_engine_sampling(port_engine *p, const fm_sampling *s);
/* Why conversations are refused, when there is a template that cannot be used; NULL otherwise. */
const char *port_engine_trouble(const port_engine *p);

#endif
