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
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
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
    report_namespaces();
    report_identity();
    report_capabilities();
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
    report_namespaces();
    report_identity();
    report_capabilities();
    report_limits();
    report_signals();
    report_scheduling();
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
