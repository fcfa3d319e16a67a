/*
 * test_detacher.c - the process that detaches at the end: it does so when it is asked and only
 * then, says how it went, has nothing open and no more capabilities than it needs, and ends with
 * us.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "detacher.h"

/* Shared with the process. */
static struct seen {
    int calls, result, open_files;
    uint64_t capabilities;
    pid_t process;
} * seen;

static int look(void *arg)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    struct seen *s = arg;

    s->calls++;
    s->process = getpid();
    for (int fd = 3; fd < 1024; fd++)
        s->open_files += fcntl(fd, F_GETFD) >= 0;
    if (syscall(SYS_capget, &header, data) == 0)
        s->capabilities = data[0].permitted | (uint64_t)data[1].permitted << 32;
    return s->result;
}

static struct detacher started(int result)
{
    struct detacher d = { 0 };

    memset(seen, 0, sizeof *seen);
    seen->result = result;
    assert_int_equal(detacher_start(&d, look, seen), 0);
    assert_true(d.process > 0);
    return d;
}

static void it_detaches_once_and_says_how_it_went(void **state)
{
    static const int results[] = { 0, -ENOENT, -EBUSY };

    for (size_t i = 0; i < 3; i++) {
        struct detacher d = started(results[i]);
        pid_t process = d.process;

        assert_int_equal(detacher_stop(&d), results[i]);
        assert_int_equal(seen->calls, 1);
        assert_int_equal(seen->process, process);
        assert_int_equal(kill(process, 0), -1);
        assert_int_equal(detacher_stop(&d), 0); /* none any more */
        assert_int_equal(seen->calls, 1);
    }
}

static void it_has_one_file_and_two_capabilities_at_most(void **state)
{
    int fd[2];
    struct detacher d;

    assert_int_equal(pipe(fd), 0);
    d = started(0);
    assert_int_equal(detacher_stop(&d), 0);
    assert_int_equal(seen->open_files, 1);
    assert_int_equal(seen->capabilities & ~(1ull << CAP_SYS_ADMIN | 1ull << CAP_NET_ADMIN), 0);
    close(fd[0]);
    close(fd[1]);
}

static void it_ends_with_us_without_detaching(void **state)
{
    struct detacher d = started(0);
    int status;

    close(d.fd);
    assert_int_equal(waitpid(d.process, &status, 0), d.process);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(seen->calls, 0);
}

static void a_signal_to_the_group_is_not_for_it(void **state)
{
    struct detacher d = started(0);

    kill(d.process, SIGTERM);
    kill(d.process, SIGINT);
    kill(d.process, SIGHUP);
    assert_int_equal(detacher_stop(&d), 0);
    assert_int_equal(seen->calls, 1);
}

static void one_that_was_killed_is_missed(void **state)
{
    struct detacher d = started(0);
    siginfo_t info;

    kill(d.process, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)d.process, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(detacher_stop(&d), -ESRCH);
    assert_int_equal(seen->calls, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_detaches_once_and_says_how_it_went),
        cmocka_unit_test(it_has_one_file_and_two_capabilities_at_most),
        cmocka_unit_test(it_ends_with_us_without_detaching),
        cmocka_unit_test(a_signal_to_the_group_is_not_for_it),
        cmocka_unit_test(one_that_was_killed_is_missed),
    };

    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seen == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
