/*
 * replay.c - runs a fuzz target over files, for builds without a fuzzer.
 *
 * Every file given, and every file in every directory given, goes through LLVMFuzzerTestOneInput()
 * once. Prints how many there were; exits with 1 when there was none, or one could not be read.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static unsigned files;

static int replay_file(const char *path, size_t bytes)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(bytes ? bytes : 1); /* exact, so that a read beyond the end is seen */
    int r = -1;

    if (f != NULL && data != NULL && fread(data, 1, bytes, f) == bytes) {
        LLVMFuzzerTestOneInput(data, bytes);
        files++;
        r = 0;
    } else {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
    }
    free(data);
    if (f != NULL)
        fclose(f);
    return r;
}

static int replay(const char *path);

static int replay_directory(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    char below[4096];
    int r = 0;

    if (d == NULL) {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        return -1;
    }
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        if (snprintf(below, sizeof below, "%s/%s", path, e->d_name) >= (int)sizeof below)
            r = -1;
        else if (replay(below) < 0)
            r = -1;
    }
    closedir(d);
    return r;
}

static int replay(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        return -1;
    }
    return S_ISDIR(st.st_mode) ? replay_directory(path) : replay_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
    int failed = 0;

    for (int i = 1; i < argc; i++)
        if (replay(argv[i]) < 0)
            failed = 1;
    printf("%u files replayed\n", files);
    return failed || files == 0;
}
