/*
 * cluster.c - `sluice cluster`: a cluster and its members. See cluster.h for its parts.
 */
#include "cli/cluster.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "sluice cluster init NODE=HOST:PORT NODE=HOST:PORT NODE=HOST:PORT ...\n"
    "                                 makes a cluster of nodes that wait, this one among them\n"
    "sluice cluster status            how the members are, and what is wrong\n"
    "sluice cluster members           who they are\n"
    "sluice cluster add NODE=HOST:PORT [--standby]\n"
    "                                 a node that waits gets the log, then, in the active region,\n"
    "                                 a vote\n"
    "sluice cluster remove NODE       takes a member out\n"
    "sluice cluster replace OLD NEW=HOST:PORT\n"
    "                                 adds the new one, then takes the old one out, dead or alive\n"
    "sluice cluster transfer [NODE]   another voter leads: this, or the one with most of the "
    "log\n"
    "sluice cluster switchover --to REGION\n"
    "                                 the other region becomes the active one, without a loss: "
    "its\n"
    "                                 nodes get votes, one of them leads, then the others' votes "
    "go\n"
    "sluice cluster failover --to REGION [--dry-run] [--dead OLD ... NEW=HOST:PORT ...]\n"
    "                                 the other region is lost: this node's, which is REGION, "
    "goes on\n"
    "                                 without it, in a new epoch\n"
    "sluice cluster rejoin            waits until all members are of the active region's epoch "
    "again,\n"
    "                                 and have its log: what was lost and is back does so by "
    "itself\n"
    "sluice cluster orphans           what nodes had that is not in the log since a failover\n"
    "sluice cluster reconcile         they offer its events again\n"
    "sluice cluster manifest FILE     checks what --manifest has made by --ca, and shows it\n"
    "sluice cluster pause, resume     no node takes events meanwhile: they are to be sent again\n\n"
    "NODE is a node's node.id, HOST:PORT its peer.advertise or peer.listen. Any member may be\n"
    "asked; what only the leader can do is passed on to it. Every command may be given again: "
    "what\n"
    "is done already succeeds (failover says that there is nothing to do), and what was cut short\n"
    "goes on. Ctrl-C ends the waiting, not what\n"
    "was asked for.\n"
    "`status` shows of each member its place behind the leader in entries (committed and not\n"
    "applied there yet), in bytes (of the leader's log, by its average entry) and in seconds\n"
    "(between the times of the last records applied).\n"
    "Exit code of status: 0 healthy, 1 not: no leader, a member is silent, a disk is full, a\n"
    "certificate has expired, the logs differ, or this node is of no cluster.\n\n"
    "Nodes of two regions: those in the region of the node where init is given vote, and are the\n"
    "active region; the others are standbys, which have the log and no vote. `status` says what a\n"
    "failover to them would lose.\n\n"
    "Options:\n"
    "  --standby        with add: it gets the log, and no vote\n"
    "  --dead           remove and replace: the old node is lost for good, so nothing is kept for\n"
    "                   what it may have had alone; where most of a region is lost, only so;\n"
    "                   with failover: of most of the region that is to go on, and new nodes, "
    "which\n"
    "                   wait, take their place\n"
    "  --to REGION      with switchover and failover: 1 or 2\n"
    "  --manifest FILE  with failover and orphans: a new file for what is lost, signed by the "
    "node\n"
    "                   that is asked; `failover` knows where the log ends that it goes on with,\n"
    "                   `orphans` how many events were cut off, once the lost nodes are back\n"
    "  --dry-run        with failover: what it would find, and might lose\n"
    "  --yes            remove, replace and failover: without asking\n" CLI_OPTIONS_HELP
    "\nExamples:\n"
    "  sluice cluster init 1=node1:7401 2=node2:7401 3=node3:7401\n"
    "  sluice cluster status\n"
    "  sluice cluster status --json | jq '.members[] | {node, role, lagEntries}'\n"
    "  sluice cluster replace 3 4=node4:7401 --yes\n"
    "  sluice cluster transfer\n"
    "  sluice cluster switchover --to 2\n"
    "  sluice cluster failover --to 2 --dry-run\n" CLI_EXIT_HELP;

/* Options that not every command takes. */
enum {
    TAKES_STANDBY = 1 << 0,
    TAKES_YES = 1 << 1,
    TAKES_TO = 1 << 2,
    TAKES_DEAD = 1 << 3,
    TAKES_DRY = 1 << 4,
    TAKES_MANIFEST = 1 << 5
};

static const struct cluster_command {
    const char *word;
    int (*run)(const struct cluster_options *o);
    unsigned takes;
    int args_min, args_max;
    const char *wanted;
} commands[] = {
    { "init", cluster_init, TAKES_YES, 3, 6,
      "init takes three to six nodes, each as NODE=HOST:PORT; this one is among them" },
    { "status", cluster_show_status, 0, 0, 0, "status takes no argument" },
    { "members", cluster_show_members, 0, 0, 0, "members takes no argument" },
    { "add", cluster_add, TAKES_STANDBY | TAKES_YES, 1, 1, "add takes one NODE=HOST:PORT" },
    { "remove", cluster_remove, TAKES_YES | TAKES_DEAD, 1, 1, "remove takes one node" },
    { "replace", cluster_replace, TAKES_YES | TAKES_DEAD, 2, 2,
      "replace takes a node and NEW=HOST:PORT" },
    { "transfer", cluster_transfer, TAKES_YES, 0, 1, "transfer takes at most one node" },
    { "switchover", cluster_switchover, TAKES_TO, 0, 0, "switchover takes no node" },
    { "failover", cluster_failover, TAKES_TO | TAKES_YES | TAKES_DRY | TAKES_MANIFEST | TAKES_DEAD,
      0, 6, "failover takes at most six nodes" },
    { "rejoin", cluster_rejoin, 0, 0, 0, "rejoin takes no argument" },
    { "orphans", cluster_orphans, TAKES_MANIFEST, 0, 0, "orphans takes no argument" },
    { "reconcile", cluster_reconcile, 0, 0, 0, "reconcile takes no argument" },
    { "manifest", cluster_manifest, 0, 1, 1, "manifest takes one file" },
    { "pause", cluster_pause, 0, 0, 0, "pause takes no argument" },
    { "resume", cluster_resume, 0, 0, 0, "resume takes no argument" },
};

static const struct option options[] = { { "standby", no_argument, NULL, TAKES_STANDBY },
                                         { "yes", no_argument, NULL, TAKES_YES },
                                         { "dead", no_argument, NULL, TAKES_DEAD },
                                         { "dry-run", no_argument, NULL, TAKES_DRY },
                                         { "to", required_argument, NULL, TAKES_TO },
                                         { "manifest", required_argument, NULL, TAKES_MANIFEST },
                                         CLI_LONG_OPTIONS };

static int run(const struct cluster_options *o, const char *word, unsigned given)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct cluster_command *c = &commands[i];

        if (strcmp(c->word, word) != 0)
            continue;
        if (o->args < c->args_min || o->args > c->args_max)
            return cli_usage("cluster", "%s", c->wanted);
        if ((given & ~c->takes) != 0)
            return cli_usage("cluster", "%s does not take --%s", word,
                             (given & ~c->takes & TAKES_STANDBY) != 0    ? "standby"
                             : (given & ~c->takes & TAKES_TO) != 0       ? "to"
                             : (given & ~c->takes & TAKES_DEAD) != 0     ? "dead"
                             : (given & ~c->takes & TAKES_DRY) != 0      ? "dry-run"
                             : (given & ~c->takes & TAKES_MANIFEST) != 0 ? "manifest"
                                                                         : "yes");
        return c->run(o);
    }
    return cli_usage(
        "cluster",
        "there is no 'cluster %s': init, status, members, add, remove, replace, "
        "transfer, switchover, failover, rejoin, orphans, reconcile, manifest, pause or "
        "resume",
        word);
}

int cluster_main(int argc, char **argv)
{
    struct cluster_options o = { 0 };
    unsigned given = 0;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == TAKES_TO && (strcmp(optarg, "1") == 0 || strcmp(optarg, "2") == 0))
            o.to = (uint32_t)(optarg[0] - '0');
        else if (opt == TAKES_TO)
            return cli_usage("cluster", "--to takes a region, 1 or 2, not '%s'", optarg);
        if (opt == TAKES_MANIFEST)
            o.manifest = optarg;
        if (opt == TAKES_MANIFEST || opt == TAKES_STANDBY || opt == TAKES_YES || opt == TAKES_TO ||
            opt == TAKES_DEAD || opt == TAKES_DRY) {
            given |= (unsigned)opt;
            continue;
        }
        rc = cli_option(&o.common, opt, help);
        if (rc >= 0)
            return rc;
    }
    if (optind == argc)
        return cli_usage("cluster", "init, status, members, add, remove, replace, transfer, "
                                    "switchover, failover, rejoin, orphans, reconcile, manifest, "
                                    "pause or resume?");
    o.standby = (given & TAKES_STANDBY) != 0;
    o.yes = (given & TAKES_YES) != 0;
    o.dead = (given & TAKES_DEAD) != 0;
    o.dry_run = (given & TAKES_DRY) != 0;
    o.args = argc - optind - 1;
    o.arg = argv + optind + 1;
    return run(&o, argv[optind], given);
}
