/*
 * peers_rig.h - three nodes in one process, each with its own thread, over real connections on
 * loopback.
 *
 * What goes wrong fails the test (cmocka). One cluster at a time; memory: peers_rig_setup() to
 * peers_rig_teardown().
 */
#ifndef SLUICE_TESTS_PEERS_RIG_H
#define SLUICE_TESTS_PEERS_RIG_H

#include "base/clock.h"
#include "tests/lib/test_app.h"

#define NODES   3
#define YEAR_S  (365ll * 86400)
#define WAIT_NS (20 * NS_PER_S)

extern struct test_app rig_app[NODES]; /* node 1 is the first */
extern struct cluster_peering rig_peering[NODES];
extern sluice_v1_Member rig_member[NODES];

int peers_rig_setup(void **state); /* of no cluster yet, and not started */
int peers_rig_teardown(void **state);
/* Before the start: TLS. Node 3 has the certificate of that node, for so long. */
void peers_rig_secure(uint16_t third, int64_t third_s);
void peers_rig_start(void);
void peers_rig_found(int i); /* asked of that one: they are a cluster */

enum cluster_state peers_rig_state(int i);
/* The one that leads and takes blocks; waits for it. */
int peers_rig_leader(void);
void peers_rig_blocks(int i, unsigned n, uint64_t first);
/* All that run have applied what this one has, and have the same chain; waits for them. */
void peers_rig_together(int as);
void peers_rig_pause(void); /* between two looks at something */

#endif
