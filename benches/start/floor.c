/* The least that a container of sysctr's default configuration can cost: the same namespaces and mounts, and the exec; no
 * config.json, no checks, no capabilities, no seccomp filter. floor ROOTFS PROGRAM ARGUMENT... */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int result, const char *what) {
    if (result < 0) {
        perror(what);
        _exit(1);
    }
}

static void put(const char *kind, const char *at, unsigned long flags, const char *data) {
    check(mount(kind, at + 1, kind, flags, data), at);
}

static const unsigned long KERNELS = MS_NOSUID | MS_NOEXEC | MS_NODEV;
static const char *MASKED_FILES[] = {"proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/sched_debug",
                                     "proc/timer_list", "proc/timer_stats"};
static const char *MASKED_FOLDERS[] = {"proc/acpi", "proc/asound", "proc/scsi", "sys/devices/virtual/powercap", "sys/firmware"};
static const char *READ_ONLY[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};

static void build(const char *root) {
    check(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL), "/");
    check(mount(root, root, NULL, MS_BIND, NULL), root);
    check(mount(NULL, root, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL), root);
    check(chdir(root), root);
    put("proc", "/proc", KERNELS, NULL);
    put("sysfs", "/sys", KERNELS | MS_RDONLY, NULL);
    put("cgroup2", "/sys/fs/cgroup", KERNELS | MS_RDONLY, NULL);
    put("tmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=755,size=65536k");
    check(mkdir("dev/pts", 0755) | mkdir("dev/mqueue", 0755) | mkdir("dev/shm", 0755), "/dev");
    put("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    put("mqueue", "/dev/mqueue", KERNELS, NULL);
    put("tmpfs", "/dev/shm", KERNELS, "mode=1777,size=65536k");
    put("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
    put("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
    put("tmpfs", "/var/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
    mount("/etc/hosts", "etc/hosts", NULL, MS_BIND, NULL);
    mount("/etc/resolv.conf", "etc/resolv.conf", NULL, MS_BIND, NULL);
    static const struct {
        const char *path;
        int minor;
    } devices[] = {{"dev/null", 3}, {"dev/zero", 5}, {"dev/full", 7}, {"dev/random", 8}, {"dev/urandom", 9}};
    for (size_t at = 0; at < sizeof devices / sizeof *devices; at++)
        check(mknod(devices[at].path, S_IFCHR | 0666, makedev(1, devices[at].minor)), devices[at].path);
    check(mknod("dev/tty", S_IFCHR | 0666, makedev(5, 0)), "/dev/tty");
    for (size_t at = 0; at < sizeof READ_ONLY / sizeof *READ_ONLY; at++)
        if (!mount(READ_ONLY[at], READ_ONLY[at], NULL, MS_BIND | MS_REC, NULL))
            mount(NULL, READ_ONLY[at], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | KERNELS, NULL);
    for (size_t at = 0; at < sizeof MASKED_FILES / sizeof *MASKED_FILES; at++)
        mount("/dev/null", MASKED_FILES[at], NULL, MS_BIND, NULL);
    for (size_t at = 0; at < sizeof MASKED_FOLDERS / sizeof *MASKED_FOLDERS; at++)
        mount("tmpfs", MASKED_FOLDERS[at], "tmpfs", MS_RDONLY | KERNELS, "nr_inodes=1,mode=555");
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(umount2(".", MNT_DETACH), "umount");
    check(chdir("/"), "/");
}

int main(int count, char **words) {
    if (count < 3)
        return 2;
    pid_t child = syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | SIGCHLD, 0, 0, 0, 0);
    check(child, "clone");
    if (child == 0) {
        build(words[1]);
        execv(words[2], words + 2);
        perror(words[2]);
        _exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
