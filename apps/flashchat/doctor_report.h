/* doctor_report.h: what `flashchat doctor --report` writes for somebody else to read. */
#ifndef FLASHCHAT_DOCTOR_REPORT_H
#define FLASHCHAT_DOCTOR_REPORT_H

#include <jansson.h>

/* findings: the list that --json prints. Writes flashchat-report.txt into the current folder, says
 * so, and returns the exit code. */
int doctor_report(const json_t *findings);

/* Text as it may leave the machine: from the first absolute path on it is cut, the user's and the
 * machine's names are replaced. out [size]. */
typedef struct private_names {
    char home[4096], user[256], host[256];
} private_names;
void report_scrub(const private_names *p, const char *text, char *out, size_t size);

#endif
