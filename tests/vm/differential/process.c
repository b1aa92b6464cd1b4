/* What the probe says of its process: namespaces, user, capabilities, limits, signals, scheduling. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "probe.h"

void report_namespaces(void)
{
    static const char *const kinds[] = {"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children",
                                        "time", "time_for_children", "user", "uts"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64], field[64], link[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        snprintf(field, sizeof field, "namespace.%s", kinds[i]);
        ssize_t length = readlink(path, link, sizeof link - 1);
        link[length < 0 ? 0 : length] = 0;
        put(field, length < 0 ? error_name(errno) : link);
    }
}

void report_identity(void)
{
    uid_t r, e, s;
    gid_t groups[256];
    getresuid(&r, &e, &s);
    putf("user.uid", "%u %u %u", r, e, s);
    getresgid(&r, &e, &s);
    putf("user.gid", "%u %u %u", r, e, s);
    int count = getgroups(256, groups);
    char list[4096] = "";
    for (int i = 0; i < count; i++)
        sprintf(list + strlen(list), "%u ", groups[i]);
    put("user.groups", list);
    mode_t mask = umask(0);
    umask(mask);
    putf("user.umask", "%04o", mask);
    put("user.uid_map", text_of("/proc/self/uid_map"));
    put("user.gid_map", text_of("/proc/self/gid_map"));
    put("user.setgroups", text_of("/proc/self/setgroups"));
}

void report_capabilities(void)
{
    struct {
        unsigned version;
        int pid;
    } header = {0x20080522, 0};
    struct {
        unsigned effective, permitted, inheritable;
    } data[2] = {0};
    if (syscall(SYS_capget, &header, data))
        put("capability", error_name(errno));
    putf("capability.effective", "%08x%08x", data[1].effective, data[0].effective);
    putf("capability.permitted", "%08x%08x", data[1].permitted, data[0].permitted);
    putf("capability.inheritable", "%08x%08x", data[1].inheritable, data[0].inheritable);
    unsigned long long bounding = 0, ambient = 0;
    for (unsigned cap = 0; cap < 64; cap++) {
        bounding |= prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 ? 1ull << cap : 0;
        ambient |= prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1 ? 1ull << cap : 0;
    }
    putf("capability.bounding", "%016llx", bounding);
    putf("capability.ambient", "%016llx", ambient);
    putf("process.securebits", "%#x", prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
    putf("process.no_new_privs", "%d", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    putf("process.keepcaps", "%d", prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0));
    putf("process.at_secure", "%lu", getauxval(AT_SECURE));
}

void report_limits(void)
{
    static const char *const names[] = {"CPU",    "FSIZE",   "DATA",  "STACK", "CORE",       "RSS",      "NPROC",  "NOFILE",
                                        "MEMLOCK", "AS",     "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        struct rlimit limit;
        char field[64];
        snprintf(field, sizeof field, "rlimit.%s", names[i]);
        if (getrlimit((__rlimit_resource_t)i, &limit))
            put(field, error_name(errno));
        else
            putf(field, "%lld:%lld", (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
}

void report_signals(void)
{
    /* Past libc. The two signals that it keeps to itself say nothing of a runtime: they are as whoever booted the machine had them. */
    char ignored[512] = "", blocked[512] = "";
    unsigned long long mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
    for (int signal = 1; signal <= 64; signal++) {
        struct {
            void *handler;
            unsigned long rest[3];
        } action = {0};
        if (signal != 32 && signal != 33 && !syscall(SYS_rt_sigaction, signal, NULL, &action, 8) && action.handler == (void *)SIG_IGN)
            sprintf(ignored + strlen(ignored), "%d ", signal);
        if (mask & (1ull << (signal - 1)))
            sprintf(blocked + strlen(blocked), "%d ", signal);
    }
    put("signal.ignored", ignored);
    put("signal.blocked", blocked);
    int death = 0, reaper = 0;
    prctl(PR_GET_PDEATHSIG, &death, 0, 0, 0);
    prctl(PR_GET_CHILD_SUBREAPER, &reaper, 0, 0, 0);
    putf("signal.parent_death", "%d", death);
    putf("process.subreaper", "%d", reaper);
}

void report_scheduling(void)
{
    struct {
        unsigned size, policy;
        unsigned long long flags;
        int nice;
        unsigned priority;
        unsigned long long runtime, deadline, period;
        unsigned low, high;
    } attr = {.size = sizeof attr};
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0))
        put("scheduler", error_name(errno));
    else
        putf("scheduler", "policy %u nice %d priority %u flags %llu deadline %llu:%llu:%llu", attr.policy, attr.nice,
             attr.priority, attr.flags, attr.runtime, attr.deadline, attr.period);
    long priority = syscall(SYS_ioprio_get, 1, 0);
    putf("ioprio", "%ld:%ld", priority >> 13, priority & 0x1fff);
    cpu_set_t set;
    putf("cpus", "%d", sched_getaffinity(0, sizeof set, &set) ? -1 : CPU_COUNT(&set));
    putf("personality", "%#x", personality(0xffffffff));
    put("oom_score_adj", text_of("/proc/self/oom_score_adj"));
    putf("process.timer_slack", "%d", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
    putf("process.thp_disabled", "%d", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    putf("process.dumpable", "%d", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    put("process.coredump_filter", text_of("/proc/self/coredump_filter"));
    put("time.offsets", text_of("/proc/self/timens_offsets"));
}
