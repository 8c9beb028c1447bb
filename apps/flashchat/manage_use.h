/* manage_use.h: who uses a model's files right now? */
#ifndef MANAGE_USE_H
#define MANAGE_USE_H

#include <stdbool.h>
#include <stddef.h>

/* True when a process (not this one) has a file below dir open or mapped; who [size] is "PID
 * (name)". Looks at what this user may look at. */
bool folder_in_use(const char *dir, char *who, size_t size);

#endif
