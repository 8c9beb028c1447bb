/* render.h: a conversation as the model would see it, and a reply as a client would; no weights. */
#ifndef INFER_RENDER_H
#define INFER_RENDER_H

/* file: {"messages": [...], "tools": [...], "chat_template_kwargs": {...}}. Writes prompt.txt,
 * tokens.txt (ids, one a line) and counts.json into the directory `output`, which is made when it
 * is missing. Returns an exit code, after a sentence on standard error. */
int render_request(const char *model_dir, const char *file, const char *output);

/* file: what a model wrote, or {"text", "tools", "thinking", "format"}. Prints reasoning, content
 * and calls as JSON. */
int parse_tool_call(const char *model_dir, const char *file);

#endif
