/* manage.h: what other commands need of `flashchat manage`. */
#ifndef FLASHCHAT_MANAGE_H
#define FLASHCHAT_MANAGE_H

#include "product.h"

/* Removes the parts (archive.h) of a model from this machine once its exact id was typed: it is
 * asked for unless typed says that it was. An exit code; nothing is removed while a program uses
 * it. */
int manage_delete(product *p, const char *name, unsigned parts, bool typed);

#endif
