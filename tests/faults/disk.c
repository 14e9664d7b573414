/* A disk that dies: an LD_PRELOAD library that counts changes of some files and kills the process at one of them, or
 * lets syncs fail from one on. Told by disk_arm(), or by DISK_FILES, DISK_KILL_AT, DISK_FAIL_SYNC_AT and DISK_NOTE in the
 * environment. A write at which the process is killed is torn: its first half is done. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char files[PATH_MAX]; /* what is in the name of each file that counts; empty: none does */
static char note[PATH_MAX];  /* where the first fault is written down: what it struck, and when */
static long kill_at, fail_sync_at;
static long changes, syncs;

void disk_arm(const char *of_files, long kill_at_change, long fail_sync, const char *note_in) {
    changes = syncs = 0;
    kill_at = kill_at_change;
    fail_sync_at = fail_sync;
    snprintf(note, sizeof note, "%s", note_in);
    snprintf(files, sizeof files, "%s", of_files);
}

long disk_changes(void) { return changes; }

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *of = getenv("DISK_FILES"), *in = getenv("DISK_NOTE");
    if (of)
        disk_arm(of, number("DISK_KILL_AT"), number("DISK_FAIL_SYNC_AT"), in ? in : "");
}

static void write_down(const char *what) {
    char line[PATH_MAX + 100];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%lld%09ld %s\n", (long long)now.tv_sec, now.tv_nsec, what);
    int file = note[0] ? open(note, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644) : -1;
    if (file >= 0) {
        ssize_t (*plain)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        plain(file, line, length);
        close(file);
    }
}

static int counts(const char *path) { return files[0] && strstr(path, files); }

static int is_ours(int fd) {
    char link[40], path[PATH_MAX];
    if (!files[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return counts(path);
}

/* Whether the process is to be killed at this change. */
static int now(const char *what) {
    if (++changes != kill_at)
        return 0;
    write_down(what);
    return 1;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

#define WRITES(name, offset)                                                                                           \
    ssize_t name(int fd, const void *data, size_t size, offset at) {                                                   \
        REAL(name);                                                                                                    \
        if (is_ours(fd) && now("write")) {                                                                             \
            real(fd, data, size / 2, at);                                                                              \
            die();                                                                                                     \
        }                                                                                                              \
        return real(fd, data, size, at);                                                                               \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (is_ours(fd) && now("write")) {
        real(fd, data, size / 2);
        die();
    }
    return real(fd, data, size);
}

#define CUTS(name, offset)                                                                                             \
    int name(int fd, offset size) {                                                                                    \
        REAL(name);                                                                                                    \
        if (is_ours(fd) && now("cut"))                                                                                 \
            die();                                                                                                     \
        return real(fd, size);                                                                                         \
    }
CUTS(ftruncate, off_t)
CUTS(ftruncate64, off64_t)

#define SYNCS(name)                                                                                                    \
    int name(int fd) {                                                                                                 \
        REAL(name);                                                                                                    \
        if (is_ours(fd)) {                                                                                             \
            if (now("sync"))                                                                                           \
                die();                                                                                                 \
            if (fail_sync_at && ++syncs >= fail_sync_at) {                                                             \
                write_down("sync");                                                                                    \
                errno = EIO;                                                                                           \
                return -1;                                                                                             \
            }                                                                                                          \
        }                                                                                                              \
        return real(fd);                                                                                               \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int rename(const char *from, const char *to) {
    REAL(rename);
    if (counts(from) && now("rename"))
        die();
    return real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    if (counts(path) && now("unlink"))
        die();
    return real(path);
}
