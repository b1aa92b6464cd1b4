/* Tries system calls with arguments that do nothing, and says what each gave: 0 or the errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRY(name, number, ...)                                                                                         \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        printf("%s %d\n", name, syscall(number, __VA_ARGS__) < 0 ? errno : 0);                                         \
    } while (0)

int main(void) {
    TRY("getppid", SYS_getppid, 0);
    TRY("personality of now", SYS_personality, 0xffffffffL);
    TRY("socket", SYS_socket, 1, 1, 0);
    TRY("unshare nothing", SYS_unshare, 0);
    TRY("mount", SYS_mount, 0, "/", 0, 0, 0);
    TRY("new mount namespace", SYS_unshare, CLONE_NEWNS);
    TRY("bpf", SYS_bpf, 9999, 0, 0);
    TRY("perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0);
    TRY("sethostname", SYS_sethostname, "x", 1);
    TRY("open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0);
    TRY("init_module", SYS_init_module, 0, 0, 0);
    TRY("swapon", SYS_swapon, 0, 0);
    TRY("userfaultfd", SYS_userfaultfd, 0x7ff);
    TRY("kcmp", SYS_kcmp, 1, 1, 9999, 0, 0);
    TRY("acct", SYS_acct, "/nowhere");
    TRY("settimeofday", SYS_settimeofday, -1L, 0);
    TRY("add_key", SYS_add_key, 0, 0, 0, 0, 0);
    TRY("io_uring_setup", SYS_io_uring_setup, 0, 0);
    TRY("another personality", SYS_personality, 0x0400000L);
    TRY("socket of the audit", SYS_socket, 16, 3, 9);
    return 0;
}
