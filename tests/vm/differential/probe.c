/* The program in every bundle of the differential test: says what it finds itself in, as one flat JSON object.
 *
 *   probe [look:PATH | sysctl:NAME | chmod:PATH | device | exit:CODE]...    the report, on standard output
 *   probe hook KIND FOLDER    as a hook: FOLDER/KIND gets the state and where the hook ran
 *   probe fail                as a hook that fails
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "probe.h"

static FILE *out;
static const char *separator = "{";

static void string(const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if (*c < ' ' || *c > '~')
            fprintf(out, "\\u%04x", *c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

void put(const char *field, const char *value)
{
    fputs(separator, out);
    separator = ",\n";
    string(field);
    fputs(": ", out);
    string(value);
}

void putf(const char *field, const char *format, ...)
{
    static char value[8192];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    put(field, value);
}

const char *error_name(int number)
{
    static char other[32];
    const char *name = strerrorname_np(number);
    if (name)
        return name;
    snprintf(other, sizeof other, "errno %d", number);
    return other;
}

const char *text_of(const char *path)
{
    static char text[1 << 16];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_name(errno);
    size_t length = 0;
    ssize_t got;
    while (length < sizeof text - 1 && (got = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    close(fd);
    if (length && text[length - 1] == '\n')
        length--;
    text[length] = 0;
    return text;
}

static void namespaces(void)
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

static void identity(void)
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

static void capabilities(void)
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

static void limits(void)
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

static void signals(void)
{
    /* Past libc, which keeps two signals to itself. */
    char ignored[512] = "", blocked[512] = "";
    unsigned long long mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
    for (int signal = 1; signal <= 64; signal++) {
        struct {
            void *handler;
            unsigned long rest[3];
        } action = {0};
        if (!syscall(SYS_rt_sigaction, signal, NULL, &action, 8) && action.handler == (void *)SIG_IGN)
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

static void scheduling(void)
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

static void processes(int argc, char **argv)
{
    char path[4096], name[32];
    putf("process.pid", "%d", getpid());
    putf("process.parent", "%d", getppid());
    put("process.leads_group", getpgid(0) == getpid() ? "yes" : "no");
    put("process.leads_session", getsid(0) == getpid() ? "yes" : "no");
    put("process.name", prctl(PR_GET_NAME, name, 0, 0, 0) ? error_name(errno) : name);
    putf("process.seccomp", "%d", prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    put("process.executable", path);
    put("cwd", getcwd(path, sizeof path) ? path : error_name(errno));
    struct stat here = {0}, there = {0};
    stat(".", &here);
    put("cwd.inside", !stat(path, &there) && here.st_ino == there.st_ino && here.st_dev == there.st_dev ? "yes" : "no");
    char all[1 << 14] = "";
    for (int i = 0; i < argc; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s\n", argv[i]);
    put("argv", all);
    *all = 0;
    for (char **one = environ; *one; one++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s\n", *one);
    put("environment", all);
    struct utsname uts;
    uname(&uts);
    put("host.name", uts.nodename);
    put("host.domain", uts.domainname);
    put("host.machine", uts.machine);
    put("cgroup", text_of("/proc/self/cgroup"));
    put("mountinfo", text_of("/proc/self/mountinfo"));
    put("label", text_of("/proc/self/attr/current"));
}

static void descriptors(void)
{
    for (int fd = 0; fd < 1024; fd++) {
        struct stat stat;
        if (fd == fileno(out) || fstat(fd, &stat))
            continue;
        char field[32], path[64], target[4096] = "";
        snprintf(field, sizeof field, "descriptor.%d", fd);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = fd < 3 ? 0 : readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        putf(field, "type %o rdev %u:%u access %d tty %d %s", stat.st_mode & S_IFMT, major(stat.st_rdev),
             minor(stat.st_rdev), fcntl(fd, F_GETFL) & O_ACCMODE, isatty(fd), target);
    }
    struct winsize size = {0};
    if (!ioctl(0, TIOCGWINSZ, &size))
        putf("terminal.size", "%ux%u", size.ws_row, size.ws_col);
    int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    put("terminal.controlling", tty < 0 ? error_name(errno) : "yes");
    if (tty >= 0)
        close(tty);
}

static void network(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo"};
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request))
        put("network.loopback", error_name(errno));
    else
        put("network.loopback", request.ifr_flags & IFF_UP ? "up" : "down");
    struct if_nameindex *all = if_nameindex();
    char list[512] = "";
    for (struct if_nameindex *one = all; one && one->if_name; one++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s ", one->if_name);
    put("network.devices", list);
    close(fd);
}

static void keyring(void)
{
    long id = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0, 0, 0);
    if (id < 0)
        put("keyring", error_name(errno));
    else
        putf("keyring", "%ld", id);
}

static int hook(const char *kind, const char *folder)
{
    char path[4096], state[1 << 14];
    size_t length = fread(state, 1, sizeof state - 1, stdin);
    state[length] = 0;
    snprintf(path, sizeof path, "%s/order", folder);
    FILE *order = fopen(path, "a");
    if (!order)
        return 1;
    fprintf(order, "%s ", kind);
    fclose(order);
    snprintf(path, sizeof path, "%s/%s", folder, kind);
    out = fopen(path, "we");
    if (!out)
        return 1;
    put("state", state);
    char *slash = getcwd(path, sizeof path);
    put("cwd", slash ? slash : error_name(errno));
    char all[4096] = "";
    for (char **one = environ; *one; one++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s\n", *one);
    put("environment", all);
    put("pivoted", access("/probe", F_OK) ? "no" : "yes");
    namespaces();
    identity();
    capabilities();
    descriptors();
    fputs("}\n", out);
    return fclose(out);
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "hook"))
        return hook(argv[2], argv[3]);
    if (argc == 2 && !strcmp(argv[1], "fail"))
        return 3;
    /* In memory first: a terminal or a pipe would be written piece by piece. */
    char *text;
    size_t length;
    int code = 0;
    out = open_memstream(&text, &length);
    namespaces();
    identity();
    capabilities();
    limits();
    signals();
    scheduling();
    processes(argc, argv);
    descriptors();
    network();
    keyring();
    report_files(argc - 1, argv + 1);
    report_calls();
    for (int i = 1; i < argc; i++)
        sscanf(argv[i], "exit:%d", &code);
    fputs("}\n", out);
    fclose(out);
    for (size_t at = 0; at < length;) {
        ssize_t wrote = write(1, text + at, length - at);
        if (wrote < 0)
            return 99;
        at += (size_t)wrote;
    }
    return code;
}
