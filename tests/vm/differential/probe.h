/* What the parts of the probe share: the report is one flat JSON object of strings. */
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>

/* Adds one field to the report. */
void put(const char *field, const char *value);
void putf(const char *field, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "name", or "errno N" for the few without a name here. */
const char *error_name(int number);
/* A whole file's text without its last newline, or the error; static storage. */
const char *text_of(const char *path);

/* The process: namespaces, user, capabilities, limits, signals, scheduling. */
void report_namespaces(void);
void report_identity(void);
void report_capabilities(void);
void report_limits(void);
void report_signals(void);
void report_scheduling(void);
/* Tries each system call in a child of its own. */
void report_calls(void);
/* Files: devices, and what looking, reading and writing at a path say. */
void report_files(int count, char **arguments);

#endif
