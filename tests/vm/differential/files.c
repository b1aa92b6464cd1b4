/* What the probe says of files: the devices in /dev, and what looking, reading and writing at certain paths does. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "probe.h"

/* Looked at in every bundle: what runtimes mask, what they protect, and where the bundles mount. */
static const char *const PLACES[] = {
    "/",
    "/data",
    "/data/below",
    "/dev",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/pts",
    "/etc",
    "/etc/file",
    "/proc",
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/self/oom_score_adj",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/run",
    "/sys",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/kernel",
    "/tmp",
    "/var",
};

static const char *kind(const struct stat *stat)
{
    switch (stat->st_mode & S_IFMT) {
    case S_IFDIR:
        return "folder";
    case S_IFCHR:
        return "char";
    case S_IFBLK:
        return "block";
    case S_IFIFO:
        return "fifo";
    case S_IFLNK:
        return "link";
    case S_IFSOCK:
        return "socket";
    default:
        return "file";
    }
}

/* Type, device number, mode, owner; of a link its target. */
static void describe(const char *path, char *text, size_t size)
{
    struct stat stat;
    if (lstat(path, &stat)) {
        snprintf(text, size, "%s", error_name(errno));
    } else if (S_ISLNK(stat.st_mode)) {
        char target[256];
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        snprintf(text, size, "link to %s", target);
    } else {
        char number[32] = "";
        if (S_ISCHR(stat.st_mode) || S_ISBLK(stat.st_mode))
            snprintf(number, sizeof number, " %u:%u", major(stat.st_rdev), minor(stat.st_rdev));
        snprintf(text, size, "%s%s %04o %u:%u", kind(&stat), number, stat.st_mode & 07777, stat.st_uid, stat.st_gid);
    }
}

static const char *read_of(const char *path, const struct stat *stat)
{
    if (S_ISDIR(stat->st_mode)) {
        DIR *folder = opendir(path);
        if (!folder)
            return error_name(errno);
        int entries = 0;
        for (struct dirent *one; (one = readdir(folder));)
            entries += strcmp(one->d_name, ".") && strcmp(one->d_name, "..");
        closedir(folder);
        return entries ? "entries" : "empty";
    }
    char byte;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return error_name(errno);
    ssize_t got = read(fd, &byte, 1);
    int error = errno;
    close(fd);
    return got < 0 ? error_name(error) : got ? "bytes" : "empty";
}

/* Nothing is written to a file that is there: opening it says enough. */
static const char *write_of(const char *path, const struct stat *stat)
{
    char name[4096];
    if (!S_ISDIR(stat->st_mode)) {
        int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
            return error_name(errno);
        close(fd);
        return "yes";
    }
    /* Others may be trying at the same moment, where the folder is the host's. */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(name, sizeof name, "%s/.probe-%ld", path, now.tv_nsec);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_name(errno);
    close(fd);
    unlink(name);
    return "yes";
}

static void look(const char *path)
{
    char field[4200], text[512];
    struct stat there;
    snprintf(field, sizeof field, "path.%s", path);
    describe(path, text, sizeof text);
    if (stat(path, &there)) {
        putf(field, "%s", text);
        return;
    }
    putf(field, "%s, read: %s", text, read_of(path, &there));
    snprintf(field, sizeof field, "write.%s", path);
    put(field, write_of(path, &there));
}

static void devices(const char *folder)
{
    DIR *open = opendir(folder);
    if (!open)
        return;
    for (struct dirent *one; (one = readdir(open));) {
        char path[512], field[600], text[512];
        if (!strcmp(one->d_name, ".") || !strcmp(one->d_name, ".."))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, one->d_name);
        snprintf(field, sizeof field, "device.%s", path);
        describe(path, text, sizeof text);
        put(field, text);
        /* What is in these comes and goes with others' terminals and keyrings. */
        if (!strncmp(text, "folder", 6) && strcmp(path, "/dev/shm") && strcmp(path, "/dev/mqueue"))
            devices(path);
    }
    closedir(open);
}

/* Makes and opens a device that no bundle lists: the kernel's log. */
static void unlisted_device(void)
{
    const char *path = "/dev/unlisted";
    if (mknod(path, S_IFCHR | 0600, makedev(1, 11))) {
        put("device.unlisted", error_name(errno));
        return;
    }
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    put("device.unlisted", fd < 0 ? error_name(errno) : "opened");
    if (fd >= 0)
        close(fd);
    unlink(path);
}

void report_files(int count, char **arguments)
{
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++)
        look(PLACES[i]);
    for (int i = 0; i < count; i++) {
        if (!strncmp(arguments[i], "look:", 5))
            look(arguments[i] + 5);
        if (!strncmp(arguments[i], "chmod:", 6))
            put("chmod", chmod(arguments[i] + 6, 0600) ? error_name(errno) : "yes");
        if (!strcmp(arguments[i], "device"))
            unlisted_device();
        if (!strncmp(arguments[i], "sysctl:", 7)) {
            char path[512], field[600];
            snprintf(path, sizeof path, "/proc/sys/%s", arguments[i] + 7);
            for (char *dot = path; (dot = strchr(dot, '.'));)
                *dot = '/';
            snprintf(field, sizeof field, "sysctl.%s", arguments[i] + 7);
            put(field, text_of(path));
        }
    }
    struct statfs fs;
    putf("root.type", "%#lx", statfs("/", &fs) ? 0 : (unsigned long)fs.f_type);
    devices("/dev");
}
