/*
 * event_line.c - see event_line.h.
 */
#include "cli/event_line.h"

#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/print_event.h"

int event_line_print(const struct admin_response *response, bool json)
{
    struct admin_event e;
    int rc = -EBADMSG;

    if (response->which == ADMIN_BODY_EVENT)
        rc = admin_event_decode(&e, response->body, response->body_bytes);
    if (rc == 0)
        rc = json ? event_print_json(stdout, e.event, e.event_bytes)
                  : event_print_text(stdout, e.event, e.event_bytes);
    if (rc == -EBADMSG)
        return cli_error(CLI_REFUSED, "the daemon's answer is not of this version");
    if (rc < 0)
        return cli_error(CLI_REFUSED, "the output cannot be written: %s", strerror(-rc));
    return CLI_OK;
}
