/*
 * daemon.c - see daemon.h.
 */
#include "tests/lib/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pb_decode.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/admin_client.h"

#define START_S_MAX 120u
#define DAEMONS_MAX 8u

static struct daemon *closed_at_exit[DAEMONS_MAX];

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list a;

    va_start(a, format);
    vfprintf(stderr, format, a);
    va_end(a);
    fputc('\n', stderr);
    exit(1);
}

static const char *env_or(const char *name, const char *otherwise)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : otherwise;
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_port = htons(port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* One that nobody has now; should another take it meanwhile, the daemon says so and ends. */
uint16_t daemon_port_free(void)
{
    struct sockaddr_in a = loopback(0);
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        die("no free port: %s", strerror(errno));
    close(fd);
    return ntohs(a.sin_port);
}

static void write_config(struct daemon *d)
{
    FILE *f = fopen(d->file, "w");

    if (f == NULL)
        die("%s: %s", d->file, strerror(errno));
    fprintf(f,
            "data:\n  dir: %s\ningest:\n  port: %u\n%s\nlog_level: warn\n"
            "%s%s",
            d->data, d->port, d->ingest, d->more, env_or("SLUICE_BENCH_CONFIG", ""));
    if (fclose(f) != 0)
        die("%s: %s", d->file, strerror(errno));
}

static bool ended(struct daemon *d, int options)
{
    if (d->pid == 0)
        return true;
    if (waitpid(d->pid, NULL, options) != d->pid)
        return false;
    d->pid = 0;
    return true;
}

static int status_try(const struct daemon *d, sluice_v1_StatusResponse *ret)
{
    const struct admin_request request = { .which = ADMIN_STATUS };
    struct admin_response response;
    struct admin_client c;
    char path[320];
    int e;

    snprintf(path, sizeof path, "%s/admin.sock", d->data);
    e = admin_client_open(&c, path);
    if (e == 0)
        e = admin_client_send(&c, &request);
    if (e == 0)
        e = admin_client_next(&c, (int)START_S_MAX * 1000, &response);
    if (e == 0 && response.which != ADMIN_BODY_STATUS)
        e = -EBADMSG;
    if (e == 0) {
        pb_istream_t in = pb_istream_from_buffer(response.body, response.body_bytes);

        *ret = (sluice_v1_StatusResponse)sluice_v1_StatusResponse_init_zero;
        if (!pb_decode(&in, sluice_v1_StatusResponse_fields, ret))
            e = -EBADMSG;
    }
    admin_client_close(&c);
    return e;
}

void daemon_status(const struct daemon *d, sluice_v1_StatusResponse *ret)
{
    int e = status_try(d, ret);

    if (e < 0)
        die("status: %s", strerror(-e));
}

bool daemon_try_status(const struct daemon *d, sluice_v1_StatusResponse *ret)
{
    return d->pid != 0 && status_try(d, ret) == 0;
}

/* Becomes argv[0] of the build. */
__attribute__((noreturn)) static void exec_program(const char *const argv[])
{
    char program[512];
    sigset_t none;

    snprintf(program, sizeof program, "%s/%s", env_or("SLUICE_BIN", "build/release"), argv[0]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(program, (char *const *)(uintptr_t)argv);
    fprintf(stderr, "%s: %s\n", program, strerror(errno));
    _exit(127);
}

void daemon_call(const char *const argv[])
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC); /* complaints go to stderr */

        (void)dup2(null, STDOUT_FILENO);
        exec_program(argv);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        die("%s %s has failed", argv[0], argv[1] != NULL ? argv[1] : "");
}

/* Until it answers, as leader if that is asked for. */
static void daemon_run(struct daemon *d, bool lead)
{
    const char *const argv[] = { "sluiced", "--config", d->file, NULL };
    uint64_t until = clock_monotonic_ns() + START_S_MAX * NS_PER_S;
    sluice_v1_StatusResponse status;

    d->pid = fork();
    if (d->pid < 0)
        die("fork: %s", strerror(errno));
    if (d->pid == 0) {
        if (d->netns >= 0 && setns(d->netns, CLONE_NEWNET) < 0)
            die("setns: %s", strerror(errno));
        exec_program(argv);
    }
    while (status_try(d, &status) < 0 || (lead && strcmp(status.role, "leader") != 0)) {
        if (ended(d, WNOHANG))
            die("sluiced did not start");
        if (clock_monotonic_ns() > until)
            die("sluiced: not what it should be after %u s", START_S_MAX);
        poll(NULL, 0, 1);
    }
}

void daemon_start(struct daemon *d) { daemon_run(d, true); }

void daemon_launch(struct daemon *d) { daemon_run(d, false); }

void daemon_open(struct daemon *d)
{
    daemon_open_in(d, -1, daemon_port_free(), "  address: [127.0.0.1]");
}

static void make_in(struct daemon *d, int netns, uint16_t port, const char *ingest)
{
    *d = (struct daemon){ .port = port, .netns = netns, .ingest = ingest };
    snprintf(d->dir, sizeof d->dir, "%s/sluice-bench-XXXXXX", env_or("SLUICE_BENCH_DIR", "/tmp"));
    if (mkdtemp(d->dir) == NULL)
        die("%s: %s", d->dir, strerror(errno));
    snprintf(d->data, sizeof d->data, "%s/data", d->dir);
    snprintf(d->file, sizeof d->file, "%s/sluiced.yaml", d->dir);
}

void daemon_open_in(struct daemon *d, int netns, uint16_t port, const char *ingest)
{
    make_in(d, netns, port, ingest);
    daemon_configure(d, "");
    daemon_start(d);
}

void daemon_make(struct daemon *d) { make_in(d, -1, daemon_port_free(), "  address: [127.0.0.1]"); }

void daemon_configure(struct daemon *d, const char *more)
{
    snprintf(d->more, sizeof d->more, "%s", more);
    write_config(d);
}

void daemon_kill(struct daemon *d)
{
    if (d->pid == 0)
        return;
    kill(d->pid, SIGKILL);
    while (!ended(d, 0)) {
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

void daemon_close(struct daemon *d)
{
    daemon_kill(d);
    if (d->dir[0] != '\0' && nftw(d->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        fprintf(stderr, "%s: not removed: %s\n", d->dir, strerror(errno));
    d->dir[0] = '\0';
}

static void close_now(void)
{
    for (unsigned i = 0; i < DAEMONS_MAX; i++) {
        if (closed_at_exit[i] != NULL)
            daemon_close(closed_at_exit[i]);
        closed_at_exit[i] = NULL;
    }
}

/* The program is ending; nothing else of it runs any more. */
static void on_signal(int signal)
{
    close_now();
    _exit(128 + signal);
}

void daemon_close_at_exit(struct daemon *d)
{
    unsigned i = 0;

    while (i < DAEMONS_MAX && closed_at_exit[i] != NULL)
        i++;
    if (i == DAEMONS_MAX)
        die("more than %u daemons", DAEMONS_MAX);
    closed_at_exit[i] = d;
    if (i > 0)
        return;
    atexit(close_now);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGHUP, on_signal);
}

/* --- measures --------------------------------------------------------------------------------- */

/* Reads a small file of /proc into text. */
static bool proc_read(char *text, size_t bytes, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, bytes - 1);

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* Of a thread: the first number of schedstat is the time on a processor, in ns. */
static uint64_t thread_cpu_ns(const char *task, const char *tid)
{
    char path[400], text[128];

    snprintf(path, sizeof path, "%s/%s/schedstat", task, tid);
    return proc_read(text, sizeof text, path) ? strtoull(text, NULL, 10) : 0;
}

uint64_t daemon_cpu_ns(const struct daemon *d)
{
    char task[64];
    struct dirent *e;
    uint64_t sum = 0;
    DIR *dir;

    snprintf(task, sizeof task, "/proc/%d/task", (int)d->pid);
    dir = opendir(task);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] != '.')
            sum += thread_cpu_ns(task, e->d_name);
    }
    if (dir != NULL)
        closedir(dir);
    return sum;
}

static unsigned long long switches(const char *status, const char *name)
{
    const char *at = strstr(status, name);

    return at != NULL ? strtoull(at + strlen(name), NULL, 10) : 0;
}

void daemon_run_on(const struct daemon *d, const cpu_set_t *processors)
{
    char task[64];
    struct dirent *e;
    DIR *dir;

    snprintf(task, sizeof task, "/proc/%d/task", (int)d->pid);
    dir = opendir(task);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] != '.')
            (void)sched_setaffinity(atoi(e->d_name), sizeof *processors, processors);
    }
    if (dir != NULL)
        closedir(dir);
}

void daemon_print_threads(const struct daemon *d)
{
    char task[64], path[400], name[64], status[4096];
    struct dirent *e;
    DIR *dir;

    snprintf(task, sizeof task, "/proc/%d/task", (int)d->pid);
    dir = opendir(task);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s/comm", task, e->d_name);
        proc_read(name, sizeof name, path);
        name[strcspn(name, "\n")] = '\0';
        snprintf(path, sizeof path, "%s/%s/status", task, e->d_name);
        proc_read(status, sizeof status, path);
        fprintf(stderr, "  thread %-16s %8.3f s on a processor, slept %llu times, preempted %llu\n",
                name, (double)thread_cpu_ns(task, e->d_name) / 1e9,
                switches(status, "\nvoluntary_ctxt_switches:"),
                switches(status, "nonvoluntary_ctxt_switches:"));
    }
    if (dir != NULL)
        closedir(dir);
}

int daemon_try_dial(const struct daemon *d)
{
    struct sockaddr_in a = loopback(d->port);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

int daemon_dial(const struct daemon *d)
{
    int fd = daemon_try_dial(d);

    if (fd < 0)
        die("port %u: %s", d->port, strerror(errno));
    return fd;
}
