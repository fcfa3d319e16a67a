/*
 * quiet_app.h - an app (struct cluster_app) that takes everything and keeps nothing, for tests of
 * what is around it: they put functions of their own in the place of those that matter to them.
 */
#ifndef SLUICE_TESTS_QUIET_APP_H
#define SLUICE_TESTS_QUIET_APP_H

#include "cluster/cluster.h"

/* Every event is new; nothing is covered by a state of its own. failed() ends the test. */
struct cluster_app quiet_app(void *arg);

#endif
