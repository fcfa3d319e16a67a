/*
 * admin_connection.c - the bytes of one admin connection, and the answers that are one message.
 */
#include "serve/admin_connection.h"

#include <errno.h>
#include <pb_encode.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/settings.h"

int connection_open(struct admin_connection **ret, int fd, uid_t uid, uint64_t now_ns)
{
    struct admin_connection *c = calloc(1, sizeof *c);

    if (c == NULL)
        return -ENOMEM;
    c->fd = -1;
    c->uid = uid;
    c->role = CERTIFICATE_ADMIN;
    c->since_ns = now_ns;
    c->in = malloc(ADMIN_IN_BYTES);
    c->out = malloc(ADMIN_OUT_BYTES);
    if (c->in == NULL || c->out == NULL) {
        connection_close(c);
        return -ENOMEM;
    }
    c->fd = fd;
    *ret = c;
    return 0;
}

void connection_close(struct admin_connection *c)
{
    if (c == NULL)
        return;
    if (c->tls != NULL)
        (void)tls_close_notify(c->tls);
    tls_free(c->tls);
    if (c->fd >= 0)
        close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

uint8_t *admin_reserve(struct admin_connection *c, size_t *ret_cap)
{
    assert(c->out_at <= c->out_bytes && c->out_bytes <= ADMIN_OUT_BYTES);
    if (c->out_at > 0) {
        memmove(c->out, c->out + c->out_at, connection_pending(c));
        c->out_bytes -= c->out_at;
        c->out_at = 0;
    }
    *ret_cap = ADMIN_OUT_BYTES - c->out_bytes;
    return c->out + c->out_bytes;
}

void connection_fail(struct admin_connection *c, int code, bool fatal, const char *format, ...)
{
    char error[ADMIN_ERROR_BYTES];
    size_t cap;
    uint8_t *to = admin_reserve(c, &cap);
    va_list args;
    int64_t n;

    va_start(args, format);
    vsnprintf(error, sizeof error, format, args);
    va_end(args);
    assert(code > 0 && error[0] != '\0');
    n = admin_response_begin(to, cap, error, (uint32_t)code, true, ADMIN_BODY_NONE, 0);
    if (n > 0)
        connection_commit(c, (size_t)n);
    else
        c->broken = true;
    if (fatal)
        c->closing = true;
}

void connection_answer(struct admin_connection *c, int64_t bytes)
{
    if (bytes > 0)
        connection_commit(c, (size_t)bytes);
    else
        connection_fail(c, EMSGSIZE, false, "the answer does not fit into a response");
}

static void answer_status(struct admin_answerer *a, struct admin_connection *c)
{
    size_t cap;
    uint8_t *to = admin_reserve(c, &cap);

    memset(&a->scratch, 0, sizeof a->scratch);
    a->source.status(a->source.arg, &a->scratch.status);
    connection_answer(c,
                      admin_response_encode(to, cap, true, ADMIN_BODY_STATUS,
                                            sluice_v1_StatusResponse_fields, &a->scratch.status));
}

static void answer_ledger(struct admin_answerer *a, struct admin_connection *c)
{
    size_t cap;
    uint8_t *to = admin_reserve(c, &cap);

    memset(&a->scratch, 0, sizeof a->scratch);
    a->source.ledger(a->source.arg, &a->scratch.ledger);
    a->scratch.ledger.has_xdp = a->scratch.ledger.xdp.present;
    connection_answer(c,
                      admin_response_encode(to, cap, true, ADMIN_BODY_LEDGER,
                                            sluice_v1_LedgerResponse_fields, &a->scratch.ledger));
}

#define SETTINGS_BODY_BYTES_MAX (ADMIN_RESPONSE_BYTES_MAX - 64u) /* beside the response's head */
#define SETTING_HEAD_BYTES      3u                               /* a tag and a length */
_Static_assert(sluice_v1_SettingEntry_size < 1u << 14, "a length of two bytes");
_Static_assert(SETTINGS_LINES_MAX *(SETTING_HEAD_BYTES + sluice_v1_SettingEntry_size) <=
                   SETTINGS_BODY_BYTES_MAX,
               "all settings are one response");

/* Collects the body of a SettingsResponse. */
struct settings_body {
    uint8_t *data;
    size_t bytes;
};

static int settings_add(void *arg, const sluice_v1_SettingEntry *entry)
{
    struct settings_body *b = arg;
    pb_ostream_t out =
        pb_ostream_from_buffer(b->data + b->bytes, SETTINGS_BODY_BYTES_MAX - b->bytes);

    if (!pb_encode_tag(&out, PB_WT_STRING, sluice_v1_SettingsResponse_settings_tag) ||
        !pb_encode_submessage(&out, sluice_v1_SettingEntry_fields, entry))
        return -EMSGSIZE;
    b->bytes += out.bytes_written;
    return 0;
}

static void answer_settings(struct admin_answerer *a, struct admin_connection *c, bool history)
{
    struct settings_body body = { .data = malloc(ADMIN_RESPONSE_BYTES_MAX) };
    size_t cap;
    uint8_t *to;
    int64_t head;
    int rc;

    if (body.data == NULL) {
        connection_fail(c, ENOMEM, false, "no memory for the settings");
        return;
    }
    rc = a->source.settings(a->source.arg, history, settings_add, &body);
    if (rc != 0) {
        connection_fail(c, rc < 0 ? -rc : EIO, false, "the settings cannot be listed: %s",
                        strerror(rc < 0 ? -rc : EIO));
        goto done;
    }
    to = admin_reserve(c, &cap);
    head = admin_response_begin(to, cap, NULL, 0, true, ADMIN_BODY_SETTINGS, body.bytes);
    if (head > 0)
        memcpy(to + head, body.data, body.bytes);
    connection_answer(c, head > 0 ? head + (int64_t)body.bytes : head);
done:
    free(body.data);
}

static size_t string_field(uint8_t *to, size_t cap, uint32_t tag, const char *text, size_t bytes)
{
    pb_ostream_t out = to ? pb_ostream_from_buffer(to, cap) : (pb_ostream_t)PB_OSTREAM_SIZING;

    if (!pb_encode_tag(&out, PB_WT_STRING, tag) ||
        !pb_encode_string(&out, (const pb_byte_t *)text, bytes))
        return 0;
    return out.bytes_written;
}

/* One form of the configuration, allocated; NULL when it cannot be written. */
static char *config_text(struct admin_answerer *a, bool json, size_t *ret_bytes)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, ret_bytes);
    int rc;

    if (f == NULL)
        return NULL;
    rc = a->source.config(a->source.arg, json, f);
    if (fclose(f) != 0 || rc != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static void answer_config(struct admin_answerer *a, struct admin_connection *c)
{
    size_t text_bytes = 0, json_bytes = 0, text_field, body, cap;
    char *text = config_text(a, false, &text_bytes);
    char *json = config_text(a, true, &json_bytes);
    uint8_t *to;
    int64_t head;

    if (text == NULL || json == NULL) {
        connection_fail(c, EIO, false, "the configuration cannot be written out");
        goto done;
    }
    text_field = string_field(NULL, 0, sluice_v1_ConfigShowResponse_text_tag, text, text_bytes);
    body =
        text_field + string_field(NULL, 0, sluice_v1_ConfigShowResponse_json_tag, json, json_bytes);
    to = admin_reserve(c, &cap);
    head = admin_response_begin(to, cap, NULL, 0, true, ADMIN_BODY_CONFIG, body);
    if (head > 0) {
        string_field(to + head, body, sluice_v1_ConfigShowResponse_text_tag, text, text_bytes);
        string_field(to + head + text_field, body - text_field,
                     sluice_v1_ConfigShowResponse_json_tag, json, json_bytes);
    }
    connection_answer(c, head > 0 ? head + (int64_t)body : head);
done:
    free(text);
    free(json);
}

static void answer(struct admin_answerer *a, struct admin_connection *c,
                   const struct admin_request *r, uint64_t now_ns)
{
    switch (r->which) {
    case ADMIN_STATUS:
        answer_status(a, c);
        break;
    case ADMIN_LEDGER:
        answer_ledger(a, c);
        break;
    case ADMIN_GET:
        get_answer(a, c, &r->get);
        break;
    case ADMIN_TAIL:
        tail_begin(a, c, &r->tail);
        break;
    case ADMIN_SETTINGS:
        answer_settings(a, c, r->settings.history);
        break;
    case ADMIN_CONFIG_SHOW:
        answer_config(a, c);
        break;
    case ADMIN_XDP_STATUS:
        xdp_status_answer(a, c, r->xdp_status.sources);
        break;
    case ADMIN_POLICY_TEST:
        policy_test_answer(a, c, &r->policy_test);
        break;
    case ADMIN_TAP:
        tap_begin(a, c, &r->tap, now_ns);
        break;
    case ADMIN_SETTING_SET:
    case ADMIN_CLUSTER_STATUS:
    case ADMIN_CLUSTER_INIT:
    case ADMIN_CLUSTER_CHANGE:
    case ADMIN_READ_POINT:
    case ADMIN_RECOVERY:
        operation_begin(a, c, r);
        break;
    }
}

static int request_find(const struct admin_connection *c, size_t *head, size_t *body)
{
    return admin_frame_find(c->in, c->in_bytes, ADMIN_REQUEST_BYTES_MAX, head, body);
}

bool connection_runnable(const struct admin_connection *c, uint64_t commit, uint64_t now_ns)
{
    size_t head, body;

    if (c->tap.on && !c->broken)
        return c->tap.next_ns <= now_ns;
    if (c->broken || c->closing || !connection_has_room(c))
        return false;
    if (c->operation != NULL)
        return operation_has_ended(c);
    if (c->tail.on)
        return c->tail.next <= commit || c->tail.next > c->tail.last;
    return request_find(c, &head, &body) != -EAGAIN;
}

int connection_work(struct admin_answerer *a, struct admin_connection *c, uint64_t now_ns)
{
    struct admin_request request;
    size_t head, body;
    int rc;

    if (c->tap.on && !c->broken)
        return c->tap.next_ns <= now_ns ? tap_work(a, c, now_ns) : 0;
    if (c->broken || c->closing || !connection_has_room(c))
        return 0;
    if (c->operation != NULL)
        return operation_work(a, c);
    if (c->tail.on)
        return tail_work(a, c);
    rc = request_find(c, &head, &body);
    if (rc == -EAGAIN)
        return 0;
    if (rc == 0)
        rc = admin_request_decode(&request, c->in + head, body);
    if (rc == -EMSGSIZE) {
        connection_fail(c, EMSGSIZE, true, "a request may have at most %u bytes",
                        ADMIN_REQUEST_BYTES_MAX);
        return 1;
    }
    if (rc < 0) {
        connection_fail(c, EBADMSG, true, "this is not an AdminRequest of this version");
        return 1;
    }
    c->in_bytes -= head + body;
    memmove(c->in, c->in + head + body, c->in_bytes);
    if (remote_may(c, request.which))
        answer(a, c, &request, now_ns);
    else
        connection_fail(c, EACCES, false, "%s, whose role is %s, may not ask for this", c->name,
                        certificate_role_name(c->role));
    return 1;
}

void connection_read(struct admin_connection *c)
{
    size_t room = ADMIN_IN_BYTES - c->in_bytes;
    ssize_t n;

    assert(room > 0 && room <= ADMIN_IN_BYTES);
    if (c->tls != NULL)
        n = tls_read(c->tls, c->in + c->in_bytes, room);
    else
        n = recv(c->fd, c->in + c->in_bytes, room, MSG_DONTWAIT);
    if (n < 0 && c->tls == NULL)
        n = -errno;
    if (n > 0)
        c->in_bytes += (size_t)n;
    else if (n == 0)
        c->eof = true;
    else if (n != -EAGAIN && n != -EINTR)
        c->broken = true;
}

void connection_flush(struct admin_connection *c, uint64_t now_ns)
{
    struct iovec iov = { c->out + c->out_at, connection_pending(c) };
    ssize_t n;

    if (iov.iov_len == 0 || c->broken)
        return;
    if (c->tls != NULL)
        n = tls_writev(c->tls, &iov, 1);
    else
        n = send(c->fd, iov.iov_base, iov.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && c->tls == NULL)
        n = -errno;
    if (n > 0) {
        c->out_at += (size_t)n;
        c->since_ns = now_ns;
    } else if (n != -EAGAIN && n != -EINTR) {
        c->broken = true;
    }
    if (connection_pending(c) == 0)
        c->out_at = c->out_bytes = 0;
}

void connection_update(struct admin_connection *c, uint64_t now_ns)
{
    enum connection_state state;

    /* A tap that is not read may not keep others from having one. */
    if (c->tail.on || c->operation != NULL || (c->tap.on && connection_pending(c) == 0))
        state = CONNECTION_TAIL;
    else if (connection_pending(c) > 0)
        state = CONNECTION_OUTPUT;
    else
        state = c->in_bytes > 0 || !connection_is_known(c) ? CONNECTION_REQUEST : CONNECTION_IDLE;
    if (state != c->state)
        c->since_ns = now_ns;
    c->state = state;
    if (connection_pending(c) > 0)
        return;
    if (c->closing || (c->eof && !c->tail.on && !c->tap.on && c->operation == NULL &&
                       !connection_runnable(c, 0, now_ns)))
        c->broken = true;
}
