/*
 * cluster_change.c - `sluice cluster init|add|remove|replace|transfer`.
 *
 * The daemon does it, or has the leader do it, and answers when it is done. Meanwhile it is asked
 * once a second, by another connection, what that waits for.
 */
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cluster.h"

#define LOOK_MS        1000 /* between two looks at what it waits for */
#define LOOK_ANSWER_MS 500u

/* --- arguments ----------------------------------------------------------------------------------
 */

int cluster_parse_node(const char *text, uint32_t *ret)
{
    uint64_t n;

    if (!cli_number(text, UINT16_MAX, &n) || n == 0)
        return cli_usage("cluster", "'%s' is no node: a number from 1 to 65535", text);
    *ret = (uint32_t)n;
    return CLI_OK;
}

/* HOST:PORT, an IPv6 address in brackets. Names are for the daemon to find. */
static bool is_place(const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;

    return colon != NULL && colon != text && cli_number(colon + 1, UINT16_MAX, &port) && port > 0 &&
           (text[0] == '[' ? colon[-1] == ']'
                           : memchr(text, ':', (size_t)(colon - text)) == NULL) &&
           strpbrk(text, "/ \t") == NULL;
}

/* NODE=HOST:PORT */
int cluster_parse_member(const char *text, uint32_t *ret_node, char *ret_address, size_t bytes)
{
    const char *equals = strchr(text, '=');
    char number[8];

    if (equals == NULL || (size_t)(equals - text) >= sizeof number)
        return cli_usage("cluster", "'%s' is not NODE=HOST:PORT", text);
    memcpy(number, text, (size_t)(equals - text));
    number[equals - text] = '\0';
    if (!is_place(equals + 1) || strlen(equals + 1) >= bytes)
        return cli_usage("cluster", "'%s' is not HOST:PORT (an IPv6 address in brackets)",
                         equals + 1);
    snprintf(ret_address, bytes, "%s", equals + 1);
    return cluster_parse_node(number, ret_node);
}

/* --- waiting ------------------------------------------------------------------------------------
 */

static void show_news(const char *what, char *shown, size_t bytes)
{
    if (what[0] == '\0' || strcmp(what, shown) == 0)
        return;
    if (shown[0] == '\0' && isatty(STDERR_FILENO))
        fputs("It goes on when you leave with Ctrl-C; the same command waits again.\n", stderr);
    fprintf(stderr, "%s\n", what);
    snprintf(shown, bytes, "%s", what);
}

/* What the leader says that it waits for, when that is news; or that there is none. */
static void show_progress(const struct cluster_options *o, char *shown, size_t bytes)
{
    const struct admin_request r = { .which = ADMIN_CLUSTER_STATUS,
                                     .cluster_status.timeout_ms = LOOK_ANSWER_MS };
    sluice_v1_ClusterStatusResponse *s = calloc(1, sizeof *s);

    if (s == NULL || cli_call(&o->common, &r, ADMIN_BODY_CLUSTER_STATUS,
                              sluice_v1_ClusterStatusResponse_fields, s) != CLI_OK) {
        free(s);
        return;
    }
    for (pb_size_t i = 0; i < s->members_count; i++)
        show_news(s->members[i].status.change, shown, bytes);
    if (s->members_count > 0 && cluster_leader(s) == NULL)
        show_news("no node leads: it waits for one", shown, bytes);
    free(s);
}

int cluster_ask_long(const struct cluster_options *o, const struct admin_request *r,
                     sluice_v1_ClusterDone *ret)
{
    char shown[sizeof((sluice_v1_NodeStatus *)0)->change] = "";
    struct admin_response response;
    struct admin_client c;
    pb_istream_t in;
    int rc = cli_ask(&c, &o->common, r);

    *ret = (sluice_v1_ClusterDone)sluice_v1_ClusterDone_init_zero;
    if (rc == CLI_OK) {
        while ((rc = cli_response_in(&c, LOOK_MS, &response)) == -1)
            show_progress(o, shown, sizeof shown);
    }
    if (rc == CLI_OK) {
        in = pb_istream_from_buffer(response.body, response.body_bytes);
        if (response.which != ADMIN_BODY_CLUSTER_DONE ||
            !pb_decode(&in, sluice_v1_ClusterDone_fields, ret))
            rc = cli_error(CLI_REFUSED, "the daemon's answer is not of this version");
    }
    admin_client_close(&c);
    return rc;
}

int cluster_carry_out(const struct cluster_options *o, const struct admin_request *r)
{
    sluice_v1_ClusterDone *done = calloc(1, sizeof *done);
    int rc = done != NULL ? cluster_ask_long(o, r, done) : cli_error(CLI_REFUSED, "no memory");

    if (rc == CLI_OK && o->common.json) {
        rc = cli_print_json(json_pack("{s:s}", "result", done->sentence), CLI_OK);
    } else if (rc == CLI_OK) {
        printf("%s\n", done->sentence);
        rc = cli_finish(CLI_OK);
    }
    free(done);
    return rc;
}

int cluster_confirm(const struct cluster_options *o, const char *what)
{
    char line[16];

    if (o->yes)
        return CLI_OK;
    if (!isatty(STDIN_FILENO))
        return cli_error(CLI_USAGE, "%s\nNobody can be asked here: --yes says that it is meant",
                         what);
    fprintf(stderr, "%s\nGo on? [y/N] ", what);
    if (fgets(line, sizeof line, stdin) != NULL && (line[0] == 'y' || line[0] == 'Y'))
        return CLI_OK;
    return cli_error(CLI_REFUSED, "nothing was changed");
}

/* --- commands -----------------------------------------------------------------------------------
 */

int cluster_init(const struct cluster_options *o)
{
    struct admin_request r = { .which = ADMIN_CLUSTER_INIT };
    sluice_v1_ClusterInitRequest *init = &r.cluster_init;

    for (int i = 0; i < o->args; i++) {
        sluice_v1_Member *m = &init->members[init->members_count++];
        int rc = cluster_parse_member(o->arg[i], &m->node, m->address,
                                      sizeof((sluice_v1_MembershipRequest *)0)->address);

        if (rc != CLI_OK)
            return rc;
        m->voter = true;
        for (int k = 0; k < i; k++) {
            if (init->members[k].node == m->node)
                return cli_usage("cluster", "node %u is there twice", m->node);
            if (strcmp(init->members[k].address, m->address) == 0)
                return cli_usage("cluster", "%s is there twice", m->address);
        }
    }
    return cluster_carry_out(o, &r);
}

int cluster_add(const struct cluster_options *o)
{
    struct admin_request r = { .which = ADMIN_CLUSTER_CHANGE };
    sluice_v1_MembershipRequest *m = &r.cluster_change;
    int rc = cluster_parse_member(o->arg[0], &m->node, m->address, sizeof m->address);

    m->kind = sluice_v1_MembershipRequest_Kind_ADD;
    m->standby = o->standby;
    return rc == CLI_OK ? cluster_carry_out(o, &r) : rc;
}

int cluster_remove(const struct cluster_options *o)
{
    struct admin_request r = { .which = ADMIN_CLUSTER_CHANGE };
    char what[256];
    int rc = cluster_parse_node(o->arg[0], &r.cluster_change.node);

    r.cluster_change.kind = sluice_v1_MembershipRequest_Kind_REMOVE;
    r.cluster_change.dead = o->dead;
    snprintf(what, sizeof what,
             "Node %u will be no member any more: no vote, and nothing more of the log. Its data "
             "directory stays as it is.",
             r.cluster_change.node);
    if (rc == CLI_OK)
        rc = cluster_confirm(o, what);
    return rc == CLI_OK ? cluster_carry_out(o, &r) : rc;
}

int cluster_replace(const struct cluster_options *o)
{
    struct admin_request r = { .which = ADMIN_CLUSTER_CHANGE };
    sluice_v1_MembershipRequest *m = &r.cluster_change;
    char what[768];
    int rc = cluster_parse_node(o->arg[0], &m->old);

    if (rc == CLI_OK)
        rc = cluster_parse_member(o->arg[1], &m->node, m->address, sizeof m->address);
    if (rc == CLI_OK && m->node == m->old)
        rc = cli_usage("cluster", "a node is replaced by one with another number");
    m->kind = sluice_v1_MembershipRequest_Kind_REPLACE;
    m->dead = o->dead;
    snprintf(what, sizeof what,
             "Node %u at %s will get the whole log and, in the active region, a vote; then node %u "
             "will be no member any more. Its data directory stays as it is.",
             m->node, m->address, m->old);
    if (rc == CLI_OK)
        rc = cluster_confirm(o, what);
    return rc == CLI_OK ? cluster_carry_out(o, &r) : rc;
}

int cluster_transfer(const struct cluster_options *o)
{
    struct admin_request r = { .which = ADMIN_CLUSTER_CHANGE };
    int rc = o->args > 0 ? cluster_parse_node(o->arg[0], &r.cluster_change.node) : CLI_OK;

    r.cluster_change.kind = sluice_v1_MembershipRequest_Kind_TRANSFER;
    return rc == CLI_OK ? cluster_carry_out(o, &r) : rc;
}
