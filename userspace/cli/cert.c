/*
 * cert.c - `sluice cert`: the certificates for TLS between nodes, producers, readers and admins.
 *
 * The key is written before the certificate. A run that was killed between the two has left a key
 * that nobody has signed; the next one makes the certificate for it. See cert.h for the parts.
 */
#include "cli/cert.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define DIR_DEFAULT   "./sluice-certs"
#define CA_NAME       "sluice"
#define CA_DAYS       3650u
#define CA_DAYS_MAX   7300u
#define LEAF_DAYS     365u
#define LEAF_DAYS_MAX 3650u
#define DAY_S         86400
#define EARLY_S       300 /* valid from so long ago: the peers' clocks may be five minutes behind */

static const char help[] =
    "sluice cert create-ca            the CA that signs the others: ca.crt, ca.key\n"
    "sluice cert create-node --id N --host HOST[,HOST...]\n"
    "                                 a node's: node-N.crt, node-N.key\n"
    "sluice cert create-client --role ROLE --name NAME\n"
    "                                 of an admin, a producer or a reader: ROLE-NAME.crt,\n"
    "                                 ROLE-NAME.key\n"
    "sluice cert show FILE            whose it is, and how long it is valid\n\n"
    "The certificate says the role, the name and a node's id in a URI, urn:sluice:...; HOST is a "
    "DNS\n"
    "name or an IP address that others reach the node by. Every machine needs ca.crt and its own\n"
    "two files; ca.key stays where it is, and is readable by its owner only.\n"
    "A file that exists is never overwritten. To renew a certificate, move the old one away: the\n"
    "key that is there is used again. A certificate ends with its CA, whatever --days says.\n"
    "Exit code 1 when the certificate shown is not valid now, or none of Sluice.\n\n"
    "Options:\n"
    "  --dir DIR        where ca.crt and ca.key are (default ./sluice-certs)\n"
    "  --out DIR        with create-node, create-client: where the files go (default: --dir)\n"
    "  --days N         how long it is valid: 1 to 3650 (default 365), a CA 1 to 7300 (default\n"
    "                   3650)\n"
    "  --name NAME      1 to 64 of A-Z a-z 0-9 . _ - (default: sluice, node-N)\n"
    "  --id N           with create-node: the node's id, 1 to 65535\n"
    "  --host HOST,...  with create-node: at most 16, and it may be given again\n"
    "  --role ROLE      with create-client: admin, producer or reader\n"
    "  --json           machine-readable output\n"
    "  --help           this text\n"
    "\nExamples:\n"
    "  sluice cert create-ca --name trading\n"
    "  sluice cert create-node --id 1 --host node1.example.org,192.0.2.10\n"
    "  sluice cert create-client --role producer --name feed-a --out ./for-feed-a\n"
    "  sluice cert show sluice-certs/node-1.crt --json | jq .daysLeft\n"
    "\nExit codes: 0 ok, 1 negative finding, 2 usage, 4 refused.\n";

/* Options that not every command takes. */
enum {
    TAKES_DIR = 1 << 0,
    TAKES_OUT = 1 << 1,
    TAKES_DAYS = 1 << 2,
    TAKES_NAME = 1 << 3,
    TAKES_ID = 1 << 4,
    TAKES_HOST = 1 << 5,
    TAKES_ROLE = 1 << 6,
};

static const struct option options[] = { { "dir", required_argument, NULL, TAKES_DIR },
                                         { "out", required_argument, NULL, TAKES_OUT },
                                         { "days", required_argument, NULL, TAKES_DAYS },
                                         { "name", required_argument, NULL, TAKES_NAME },
                                         { "id", required_argument, NULL, TAKES_ID },
                                         { "host", required_argument, NULL, TAKES_HOST },
                                         { "role", required_argument, NULL, TAKES_ROLE },
                                         { "json", no_argument, NULL, CLI_OPT_JSON },
                                         { "help", no_argument, NULL, CLI_OPT_HELP },
                                         { NULL, 0, NULL, 0 } };

struct cert_options {
    struct cli_options common;
    const char *dir, *out, *name;
    struct certificate who; /* role and node as given; name and dates are set when it is made */
    struct certificate_hosts hosts;
    uint64_t days; /* 0: the default */
    char **arg;
    int args;
};

/* What is being made, and from what. */
struct making {
    struct cert_dir ca_dir, out;
    char key_name[CERT_FILE_BYTES], crt_name[CERT_FILE_BYTES];
    EVP_PKEY *key, *ca_key;
    X509 *ca, *crt;
    struct certificate ca_who;
};

static void making_fini(struct making *m)
{
    X509_free(m->crt);
    X509_free(m->ca);
    EVP_PKEY_free(m->ca_key);
    EVP_PKEY_free(m->key);
    cert_dir_close(&m->out);
    cert_dir_close(&m->ca_dir);
}

/* --- making --------------------------------------------------------------------------------- */

static int load_ca(struct making *m, const char *path)
{
    int rc = cert_dir_open(&m->ca_dir, path, false);

    if (rc != CLI_OK)
        return rc;
    if (!cert_dir_has(&m->ca_dir, "ca.crt"))
        return cli_error(CLI_REFUSED, "there is no CA in %s: `sluice cert create-ca` makes one",
                         path);
    rc = cert_load_ca(&m->ca_dir, "ca.crt", &m->ca, &m->ca_who);
    if (rc == CLI_OK)
        rc = cert_load_key(&m->ca_dir, "ca.key", &m->ca_key);
    if (rc != CLI_OK)
        return rc;
    if (EVP_PKEY_eq(X509_get0_pubkey(m->ca), m->ca_key) != 1)
        return cli_error(CLI_REFUSED, "%s/ca.key does not belong to %s/ca.crt", path, path);
    return CLI_OK;
}

/* From when until when; never longer than the CA. */
static int set_dates(const struct making *m, struct certificate *who, uint64_t days)
{
    int64_t now_s = time(NULL);
    char text[CERT_TIME_BYTES];

    who->from_s = now_s - EARLY_S;
    who->until_s = now_s + (int64_t)days * DAY_S;
    if (m->ca == NULL)
        return CLI_OK;
    if (now_s < m->ca_who.from_s)
        return cli_error(CLI_REFUSED,
                         "the CA is not valid before %s: is this machine's clock right?",
                         cert_time(text, m->ca_who.from_s));
    if (now_s >= m->ca_who.until_s)
        return cli_error(CLI_REFUSED, "the CA is not valid any more, since %s",
                         cert_time(text, m->ca_who.until_s));
    if (who->from_s < m->ca_who.from_s)
        who->from_s = m->ca_who.from_s;
    if (who->until_s > m->ca_who.until_s) {
        who->until_s = m->ca_who.until_s;
        cli_error(CLI_OK, "the certificate ends with its CA, at %s, and not after %u days",
                  cert_time(text, who->until_s), (unsigned)days);
    }
    return CLI_OK;
}

/* Under the lock: nothing is there yet, or a key that waits for its certificate. */
static int take_key(struct making *m)
{
    bool have_key = cert_dir_has(&m->out, m->key_name);

    cert_dir_tidy(&m->out, m->key_name);
    cert_dir_tidy(&m->out, m->crt_name);
    if (cert_dir_has(&m->out, m->crt_name))
        return cli_error(CLI_REFUSED, "%s/%s exists already, and stays as it is%s", m->out.path,
                         m->crt_name, have_key ? "" : "; but its key is not there");
    if (have_key) {
        cli_error(CLI_OK, "%s/%s exists already: the certificate is made for it", m->out.path,
                  m->key_name);
        return cert_load_key(&m->out, m->key_name, &m->key);
    }
    m->key = cert_make_key();
    if (m->key == NULL)
        return cli_error(CLI_REFUSED, "OpenSSL cannot make a key");
    return cert_write_key(&m->out, m->key_name, m->key);
}

static int make(struct making *m, const struct cert_options *o, const struct certificate *who)
{
    struct cert_order order = { .who = who, .hosts = &o->hosts, .ca = m->ca, .ca_key = m->ca_key };
    int rc = cert_dir_lock(&m->out);

    if (rc == CLI_OK)
        rc = take_key(m);
    if (rc != CLI_OK)
        return rc;
    order.key = m->key;
    m->crt = cert_make(&order);
    if (m->crt == NULL)
        return cli_error(CLI_REFUSED, "OpenSSL cannot make the certificate");
    return cert_write_crt(&m->out, m->crt_name, m->crt);
}

static int print_made(const struct making *m, bool json)
{
    char key[4096 + CERT_FILE_BYTES], crt[sizeof key];
    const char *const files[2] = { key, crt };

    snprintf(key, sizeof key, "%s/%s", m->out.path, m->key_name);
    snprintf(crt, sizeof crt, "%s/%s", m->out.path, m->crt_name);
    return cert_print(m->crt, crt, json, files);
}

/* base: the files' names without their endings. */
static int create(const struct cert_options *o, const char *name, const char *base)
{
    struct making m = { .ca_dir.fd = -1, .out.fd = -1 };
    struct certificate who = o->who;
    bool ca = who.role == CERTIFICATE_CA;
    const char *dir = o->dir ? o->dir : DIR_DEFAULT;
    uint64_t days = o->days ? o->days : ca ? CA_DAYS : LEAF_DAYS;
    int rc = CLI_OK;

    assert(certificate_name_valid(name, strlen(name)));
    snprintf(who.name, sizeof who.name, "%s", name);
    snprintf(m.key_name, sizeof m.key_name, "%s.key", base);
    snprintf(m.crt_name, sizeof m.crt_name, "%s.crt", base);
    umask(077); /* no file or directory is open to others, not even for a moment */
    if (!ca)
        rc = load_ca(&m, dir);
    if (rc == CLI_OK)
        rc = set_dates(&m, &who, days);
    if (rc == CLI_OK)
        rc = cert_dir_open(&m.out, o->out ? o->out : dir, true);
    if (rc == CLI_OK)
        rc = make(&m, o, &who);
    if (rc == CLI_OK)
        rc = print_made(&m, o->common.json);
    making_fini(&m);
    return rc;
}

/* --- the commands --------------------------------------------------------------------------- */

static int run_create_ca(struct cert_options *o)
{
    o->who.role = CERTIFICATE_CA;
    return create(o, o->name ? o->name : CA_NAME, "ca");
}

static int run_create_node(struct cert_options *o)
{
    char base[sizeof "node-65535"];

    if (o->who.node == 0)
        return cli_usage("cert", "which node is it? --id N");
    if (o->hosts.n == 0)
        return cli_usage("cert",
                         "by which names or addresses is it reached? --host HOST[,HOST...]");
    o->who.role = CERTIFICATE_NODE;
    snprintf(base, sizeof base, "node-%u", o->who.node);
    return create(o, o->name ? o->name : base, base);
}

static int run_create_client(struct cert_options *o)
{
    char base[CERTIFICATE_NAME_BYTES + sizeof "producer-"];

    if (o->who.role == CERTIFICATE_CA)
        return cli_usage("cert", "what is the client? --role admin, producer or reader");
    if (o->name == NULL)
        return cli_usage("cert", "what is the client's name? --name NAME");
    snprintf(base, sizeof base, "%s-%s", certificate_role_name(o->who.role), o->name);
    return create(o, o->name, base);
}

static int run_show(struct cert_options *o)
{
    if (o->args != 1)
        return cli_usage("cert", "show takes one file");
    return cert_show(o->arg[0], o->common.json);
}

static const struct cert_command {
    const char *word;
    int (*run)(struct cert_options *o);
    unsigned takes;
    bool arguments;
    unsigned days_max;
} commands[] = {
    { "create-ca", run_create_ca, TAKES_DIR | TAKES_DAYS | TAKES_NAME, false, CA_DAYS_MAX },
    { "create-node", run_create_node,
      TAKES_DIR | TAKES_OUT | TAKES_DAYS | TAKES_NAME | TAKES_ID | TAKES_HOST, false,
      LEAF_DAYS_MAX },
    { "create-client", run_create_client,
      TAKES_DIR | TAKES_OUT | TAKES_DAYS | TAKES_NAME | TAKES_ROLE, false, LEAF_DAYS_MAX },
    { "show", run_show, 0, true, 0 },
};

static int take_hosts(struct cert_options *o, const char *text)
{
    const char *why;

    for (const char *at = text;; at++) {
        size_t bytes = strcspn(at, ",");

        if (certificate_hosts_add(&o->hosts, at, bytes, &why) < 0)
            return cli_usage("cert", "host '%.*s' %s", (int)bytes, at, why);
        at += bytes;
        if (*at == '\0')
            return -1;
    }
}

static int take_role(struct cert_options *o, const char *text)
{
    for (unsigned role = CERTIFICATE_ADMIN; role < CERTIFICATE_ROLES; role++) {
        if (strcmp(text, certificate_role_name((enum certificate_role)role)) == 0) {
            o->who.role = (enum certificate_role)role;
            return -1;
        }
    }
    return cli_usage("cert", "there is no role '%s': admin, producer or reader", text);
}

static int take_option(struct cert_options *o, int opt)
{
    uint64_t id;

    switch (opt) {
    case TAKES_DIR:
        o->dir = optarg;
        return -1;
    case TAKES_OUT:
        o->out = optarg;
        return -1;
    case TAKES_DAYS:
        if (!cli_number(optarg, CA_DAYS_MAX, &o->days) || o->days == 0)
            return cli_usage("cert", "--days takes 1 to %u, for a CA 1 to %u", LEAF_DAYS_MAX,
                             CA_DAYS_MAX);
        return -1;
    case TAKES_NAME:
        o->name = optarg;
        if (!certificate_name_valid(optarg, strlen(optarg)))
            return cli_usage("cert", "a name has 1 to %u characters of A-Z a-z 0-9 . _ -",
                             CERTIFICATE_NAME_BYTES - 1);
        return -1;
    case TAKES_ID:
        if (!cli_number(optarg, CERTIFICATE_NODE_MAX, &id) || id == 0)
            return cli_usage("cert", "--id takes 1 to %u", CERTIFICATE_NODE_MAX);
        o->who.node = (uint16_t)id;
        return -1;
    case TAKES_HOST:
        return take_hosts(o, optarg);
    case TAKES_ROLE:
        return take_role(o, optarg);
    default:
        return cli_option(&o->common, opt, help);
    }
}

static int check_options(const struct cert_command *c, const struct cert_options *o, unsigned given)
{
    for (size_t i = 0; options[i].name != NULL; i++) {
        unsigned bit = (unsigned)options[i].val;

        if (options[i].val <= TAKES_ROLE && (given & bit) != 0 && (c->takes & bit) == 0)
            return cli_usage("cert", "%s takes no --%s", c->word, options[i].name);
    }
    if ((given & TAKES_DAYS) != 0 && o->days > c->days_max)
        return cli_usage("cert", "%s takes --days of 1 to %u", c->word, c->days_max);
    if (o->args > 0 && !c->arguments)
        return cli_usage("cert", "what is '%s' for?", o->arg[0]);
    return CLI_OK;
}

int cert_main(int argc, char **argv)
{
    struct cert_options o = { .who.role = CERTIFICATE_CA };
    unsigned given = 0;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        rc = take_option(&o, opt);
        if (rc >= 0)
            return rc;
        if (opt <= TAKES_ROLE)
            given |= (unsigned)opt;
    }
    if (argc - optind < 1)
        return cli_usage("cert", "create-ca, create-node, create-client or show?");
    o.args = argc - optind - 1;
    o.arg = argv + optind + 1;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[optind], commands[i].word) != 0)
            continue;
        rc = check_options(&commands[i], &o, given);
        return rc == CLI_OK ? commands[i].run(&o) : rc;
    }
    return cli_usage("cert", "there is no 'cert %s': create-ca, create-node, create-client or show",
                     argv[optind]);
}
