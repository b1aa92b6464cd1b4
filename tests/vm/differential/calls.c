/* What the filter does to system calls: each is tried in a child of its own, with arguments that do no harm when it is let
 * through. What the kernel then says (a bad descriptor, no permission) is part of the answer, and the same for each runtime. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

#define NOWHERE 1L /* no address */
#define ADMIN (CLONE_NEWNS | CLONE_NEWUTS)

struct call {
    const char *name;
    long number, arguments[6];
};

static const struct call CALLS[] = {
    {"acct", SYS_acct, {NOWHERE}},
    {"add_key", SYS_add_key, {NOWHERE, NOWHERE}},
    {"adjtimex", SYS_adjtimex, {NOWHERE}},
    {"bpf", SYS_bpf, {-1, NOWHERE}},
    {"chmod", SYS_chmod, {NOWHERE, 0}},
    {"chroot", SYS_chroot, {NOWHERE}},
    {"clock_adjtime", SYS_clock_adjtime, {0, NOWHERE}},
    {"clock_settime", SYS_clock_settime, {0, NOWHERE}},
    {"clone3", SYS_clone3, {0, 0}},
    {"close_range", SYS_close_range, {1000, 999}},
    {"delete_module", SYS_delete_module, {NOWHERE, 0}},
    {"fanotify_init", SYS_fanotify_init, {-1, 0}},
    {"finit_module", SYS_finit_module, {-1, NOWHERE, 0}},
    {"fsconfig", SYS_fsconfig, {-1, 0, 0, 0, 0}},
    {"fsmount", SYS_fsmount, {-1, 0, 0}},
    {"fsopen", SYS_fsopen, {NOWHERE, 0}},
    {"fspick", SYS_fspick, {-1, NOWHERE, 0}},
    {"futex_waitv", SYS_futex_waitv, {0, 0, 1, 0, 0}},
    {"get_mempolicy", SYS_get_mempolicy, {0, 0, 0, 0, 0}},
    {"getdents64", SYS_getdents64, {-1, NOWHERE, 1}},
    {"getpid", SYS_getpid, {0}},
    {"init_module", SYS_init_module, {NOWHERE, 0, NOWHERE}},
    {"io_uring_setup", SYS_io_uring_setup, {0, NOWHERE}},
    {"ioctl TIOCLINUX", SYS_ioctl, {-1, 0x541c, 0}},
    {"ioctl TIOCSTI", SYS_ioctl, {-1, 0x5412, 0}},
    {"kcmp", SYS_kcmp, {1, 1, 99, 0, 0}},
    {"kexec_load", SYS_kexec_load, {0, 0, NOWHERE, -1}},
    {"keyctl", SYS_keyctl, {0x7fff, 0, 0}},
    {"landlock_create_ruleset", SYS_landlock_create_ruleset, {0, 0, 1}},
    {"lseek 9", SYS_lseek, {-1, 9, 0}},
    {"lseek 10", SYS_lseek, {-1, 10, 0}},
    {"lseek 11", SYS_lseek, {-1, 11, 0}},
    {"lseek 11 whence 1", SYS_lseek, {-1, 11, 1}},
    {"lseek 11 whence 2", SYS_lseek, {-1, 11, 2}},
    {"lseek 10 + 2^32", SYS_lseek, {-1, (1L << 32) + 10, 0}},
    {"lseek -1", SYS_lseek, {-1, -1, 0}},
    {"lseek 0xff0a", SYS_lseek, {-1, 0xff0a, 0}},
    {"mbind", SYS_mbind, {NOWHERE, 0, 0, 0, 0, 0}},
    {"memfd_create", SYS_memfd_create, {NOWHERE, 0}},
    {"mknodat", SYS_mknodat, {-1, NOWHERE, 0, 0}},
    {"mount", SYS_mount, {NOWHERE, NOWHERE, NOWHERE, 0, 0}},
    {"mount_setattr", SYS_mount_setattr, {-1, NOWHERE, 0, 0, 0}},
    {"move_mount", SYS_move_mount, {-1, NOWHERE, -1, NOWHERE, 0}},
    {"move_pages", SYS_move_pages, {0, 0, 0, 0, 0, 0}},
    {"name_to_handle_at", SYS_name_to_handle_at, {-1, NOWHERE, 0, 0, 0}},
    {"open_by_handle_at", SYS_open_by_handle_at, {-1, NOWHERE, 0}},
    {"open_tree", SYS_open_tree, {-1, NOWHERE, 0}},
    {"perf_event_open", SYS_perf_event_open, {NOWHERE, 0, 0, -1, 0}},
    {"personality get", SYS_personality, {0xffffffff}},
    {"personality UNAME26", SYS_personality, {0x20000}},
    {"pidfd_getfd", SYS_pidfd_getfd, {-1, 0, 0}},
    {"pidfd_open", SYS_pidfd_open, {-1, 0}},
    {"pivot_root", SYS_pivot_root, {NOWHERE, NOWHERE}},
    {"process_vm_readv", SYS_process_vm_readv, {1, 0, 0, 0, 0, 0}},
    {"ptrace", SYS_ptrace, {0x7fff, 1, 0, 0}},
    {"quotactl", SYS_quotactl, {-1, NOWHERE, 0, 0}},
    {"reboot", SYS_reboot, {0, 0, 0, 0}},
    {"request_key", SYS_request_key, {NOWHERE, NOWHERE, 0, 0}},
    {"sched_setscheduler", SYS_sched_setscheduler, {0, 0x7f, NOWHERE}},
    {"setdomainname", SYS_setdomainname, {NOWHERE, -1}},
    {"sethostname", SYS_sethostname, {NOWHERE, -1}},
    {"setns", SYS_setns, {-1, 0}},
    {"setpriority", SYS_setpriority, {99, 0, 0}},
    {"settimeofday", SYS_settimeofday, {NOWHERE, 0}},
    {"setuid", SYS_setuid, {0}},
    {"socket audit", SYS_socket, {16, 3, 9}},
    {"socket raw", SYS_socket, {2, 3, 1}},
    {"socket vsock", SYS_socket, {40, 1, 0}},
    {"swapon", SYS_swapon, {NOWHERE, 0}},
    {"sync", SYS_syncfs, {-1}},
    {"syslog", SYS_syslog, {10, 0, 0}},
    {"umount2", SYS_umount2, {NOWHERE, 0}},
    {"unshare namespaces", SYS_unshare, {ADMIN}},
    {"unshare nothing", SYS_unshare, {0}},
    {"unshare user", SYS_unshare, {CLONE_NEWUSER}},
    {"userfaultfd", SYS_userfaultfd, {-1}},
#ifdef __x86_64__
    {"arch_prctl", SYS_arch_prctl, {0x7fff, 0}},
    {"iopl", SYS_iopl, {0}},
    {"modify_ldt", SYS_modify_ldt, {0, 0, 0}},
    {"x32 getpid", 0x40000000L | SYS_getpid, {0}},
#endif
};

/* Through the way in that 32-bit programs take: a filter that forgot it would let everything through there. */
#ifdef __x86_64__
static long as_32_bit(long number)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0) : "memory");
    return result;
}
#endif

static int child(const struct call *call)
{
    const long *a = call->arguments;
#ifdef __x86_64__
    if (call->number < 0) {
        long result = as_32_bit(-call->number);
        return result < 0 ? (int)-result : 0;
    }
#endif
    return syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]) < 0 ? errno : 0;
}

static void try(const struct call *call)
{
    char field[64];
    int status;
    snprintf(field, sizeof field, "call.%s", call->name);
    pid_t pid = fork();
    if (!pid) {
        for (int signal = 1; signal < 32; signal++)
            syscall(SYS_rt_sigaction, signal, &(long[4]){0}, NULL, 8);
        _exit(child(call));
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        put(field, error_name(errno));
    else if (WIFSIGNALED(status))
        putf(field, "killed by %d", WTERMSIG(status));
    else
        put(field, WEXITSTATUS(status) ? error_name(WEXITSTATUS(status)) : "ok");
}

void report_calls(void)
{
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
        try(&CALLS[i]);
#ifdef __x86_64__
    try(&(struct call){"32 bit getpid", -20, {0}});
    try(&(struct call){"32 bit mount", -21, {0}});
#endif
}
