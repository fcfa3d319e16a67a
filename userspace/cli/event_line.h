/*
 * event_line.h - one event of the daemon's answer on stdout, as the options ask for it.
 */
#ifndef SLUICE_CLI_EVENT_LINE_H
#define SLUICE_CLI_EVENT_LINE_H

#include <stdbool.h>

#include "base/admin_frame.h"

/* Returns CLI_OK, or an exit code after saying on stderr what is wrong. */
int event_line_print(const struct admin_response *response, bool json);

#endif
