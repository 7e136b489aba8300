// Makes one system call of a program fail. Preloaded; the environment says which:
//   FAIL_CALL   write, fsync or rename
//   FAIL_AT     which of these calls, from 1; of writes only those to regular files count
//   FAIL_ERRNO  the error, as a number
// A FAIL_LOG file gets one byte for each counted call, so that a test learns how many there are.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int counted;

static int fails(const char *call) {
    const char *wanted = getenv("FAIL_CALL"), *at = getenv("FAIL_AT"), *code = getenv("FAIL_ERRNO"), *log = getenv("FAIL_LOG");
    if (!wanted || strcmp(wanted, call)) return 0;
    int number = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (log) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        if (fd >= 0) { real(fd, "x", 1); close(fd); }
    }
    if (!at || number != atoi(at)) return 0;
    errno = code ? atoi(code) : EIO;
    return 1;
}

static int regular(int fd) {
    struct stat s;
    return fstat(fd, &s) == 0 && S_ISREG(s.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    return regular(fd) && fails("write") ? -1 : real(fd, bytes, n);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = dlsym(RTLD_NEXT, "writev");
    return regular(fd) && fails("write") ? -1 : real(fd, parts, n);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    return fails("fsync") ? -1 : real(fd);
}

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = dlsym(RTLD_NEXT, "rename");
    return fails("rename") ? -1 : real(from, to);
}
