/*
 * replay.c - runs a fuzz target over the files and directories given as arguments, so that the
 * corpora are checked by builds without a fuzzer.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static unsigned long files;

static int replay_file(const char *path, size_t bytes)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(bytes + 1);
    size_t got;

    if (f == NULL || data == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        free(data);
        if (f != NULL)
            fclose(f);
        return -1;
    }
    got = fread(data, 1, bytes, f);
    fclose(f);
    /* An exact copy, so that a sanitizer sees every read behind the end. */
    uint8_t *exact = malloc(got > 0 ? got : 1);

    if (exact != NULL) {
        memcpy(exact, data, got);
        LLVMFuzzerTestOneInput(exact, got);
        files++;
    }
    free(exact);
    free(data);
    return exact != NULL ? 0 : -1;
}

static int replay(const char *path)
{
    struct stat st;
    struct dirent *e;
    int error = 0;
    DIR *dir;

    if (stat(path, &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    if (!S_ISDIR(st.st_mode))
        return replay_file(path, (size_t)st.st_size);
    dir = opendir(path);
    if (dir == NULL)
        return -1;
    while ((e = readdir(dir)) != NULL) {
        char below[4096];

        if (e->d_name[0] == '.')
            continue;
        snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        error |= replay(below);
    }
    closedir(dir);
    return error;
}

int main(int argc, char **argv)
{
    int error = argc < 2 ? -1 : 0;

    for (int i = 1; i < argc; i++)
        error |= replay(argv[i]);
    printf("%lu inputs replayed\n", files);
    return error == 0 && files > 0 ? 0 : 1;
}
