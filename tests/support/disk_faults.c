/* A disk that fails on command: loaded before libc, it stands between a process and its files.

   Only calls that change files below `folder` count. What is not stopped is done by the real
   system, so the files are real ones. Build: cc -shared -fPIC -O1 -o disk_faults.so disk_faults.c
   -ldl */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long kill_at = -1;    /* die before this call, counted from 1 */
static long fail_at = -1;    /* let this call and all after it fail */
static int fail_errno = EIO;
static int is_torn = 0;      /* of a write that is died in, do half first */
static long bytes_left = -1; /* what the disk still takes */
static int has_no_locks = 0;
static int is_read_only = 0;
static long calls = 0;

void disk_faults_arm(const char *path, long die, int torn, long fail, int error, long bytes,
                     int no_locks, int read_only) {
    strncpy(folder, path, sizeof folder - 1);
    kill_at = die;
    is_torn = torn;
    fail_at = fail;
    fail_errno = error;
    bytes_left = bytes;
    has_no_locks = no_locks;
    is_read_only = read_only;
    calls = 0;
}

long disk_faults_calls(void) { return calls; }

static int is_path_ours(const char *path) {
    return folder[0] != 0 && path != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_descriptor_ours(int descriptor) {
    char link[64], path[PATH_MAX];
    if (folder[0] == 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_path_ours(path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Count one call; return whether it has to fail, with errno set. */
static int step(void) {
    long number = __sync_add_and_fetch(&calls, 1);
    if (number == kill_at) die();
    if (fail_at > 0 && number >= fail_at) {
        errno = fail_errno;
        return -1;
    }
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* How many bytes of a write the disk takes: fewer if it gets full, none if it is. */
static ssize_t allow(size_t size) {
    if (bytes_left < 0) return (ssize_t)size;
    if (bytes_left == 0 && size > 0) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t taken = (long)size < bytes_left ? (ssize_t)size : (ssize_t)bytes_left;
    bytes_left -= taken;
    return taken;
}

#define WRITE(name, parameters, arguments_of)                                  \
    ssize_t name parameters {                                                  \
        if (!is_descriptor_ours(descriptor)) return REAL(name) arguments_of(size); \
        if (is_torn && calls + 1 == kill_at) {                                 \
            REAL(name) arguments_of(size / 2);                                 \
            die();                                                             \
        }                                                                      \
        if (step() < 0) return -1;                                             \
        ssize_t taken = allow(size);                                           \
        if (taken < 0) return -1;                                              \
        return REAL(name) arguments_of((size_t)taken);                         \
    }

#define PLAIN(count) (descriptor, data, count)
#define PLACED(count) (descriptor, data, count, offset)

WRITE(write, (int descriptor, const void *data, size_t size), PLAIN)
WRITE(pwrite, (int descriptor, const void *data, size_t size, off_t offset), PLACED)
WRITE(pwrite64, (int descriptor, const void *data, size_t size, off64_t offset), PLACED)

#define ON_DESCRIPTOR(name, parameters, arguments)                             \
    int name parameters {                                                      \
        if (is_descriptor_ours(descriptor) && step() < 0) return -1;           \
        return REAL(name) arguments;                                           \
    }

ON_DESCRIPTOR(fsync, (int descriptor), (descriptor))
ON_DESCRIPTOR(fdatasync, (int descriptor), (descriptor))
ON_DESCRIPTOR(ftruncate, (int descriptor, off_t size), (descriptor, size))
ON_DESCRIPTOR(ftruncate64, (int descriptor, off64_t size), (descriptor, size))

static int refuse_changes(void) {
    if (!is_read_only) return 0;
    errno = EROFS;
    return -1;
}

#define ON_PATH(name, parameters, arguments)                                   \
    int name parameters {                                                      \
        if (is_path_ours(path) && (refuse_changes() < 0 || step() < 0)) return -1; \
        return REAL(name) arguments;                                           \
    }

ON_PATH(rename, (const char *path, const char *target), (path, target))
ON_PATH(unlink, (const char *path), (path))
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(chmod, (const char *path, mode_t mode), (path, mode))

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t mode = va_arg(rest, mode_t);                                    \
        va_end(rest);                                                          \
        int writes = (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0;             \
        if (writes && is_path_ours(path)) {                                    \
            if (refuse_changes() < 0) return -1;                               \
            if ((flags & O_CREAT) && step() < 0) return -1;                    \
        }                                                                      \
        return REAL(name)(path, flags, mode);                                  \
    }

OPEN(open)
OPEN(open64)

int flock(int descriptor, int operation) {
    if (has_no_locks && is_descriptor_ours(descriptor)) {
        errno = ENOLCK;
        return -1;
    }
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(descriptor, operation);
}
