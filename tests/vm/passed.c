/* Tells on standard output what systemd passed it, line by line, and then does what the variable MODE says of the talk between
 * a service and systemd. Ends at SIGTERM. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>

enum { FIRST = 3, MOST = 16 };
static int passed;
static char names[MOST][64];

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "-";
}

static const char *whose(const char *name) {
    return !getenv(name) ? "-" : atoi(getenv(name)) == getpid() ? "own" : "another's";
}

static void notify(const char *text, int fd) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof to.sun_path)
        return;
    strcpy(to.sun_path, path);
    if (*path == '@')
        to.sun_path[0] = 0;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof fd)];
    } control = {0};
    struct iovec data = {(void *)text, strlen(text)};
    struct msghdr message = {&to, offsetof(struct sockaddr_un, sun_path) + strlen(path), &data, 1, NULL, 0, 0};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    }
    int out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sendmsg(out, &message, 0) < 0)
        perror("notify");
    close(out);
}

static void say(const char *text) {
    notify(text, -1);
}

static const char *word(int number, const char *const *words, int count) {
    return number >= 0 && number < count && words[number] ? words[number] : "other";
}

/* What a descriptor is: its kind, its flags, and where it is bound. */
static void describe(const char *name, int fd) {
    static const char *const types[] = {[SOCK_STREAM] = "stream", [SOCK_DGRAM] = "datagram", [SOCK_SEQPACKET] = "seqpacket"};
    static const char *const families[] = {[AF_UNIX] = "unix", [AF_INET] = "inet", [AF_INET6] = "inet6"};
    struct stat stat;
    if (fstat(fd, &stat) < 0) {
        printf("%s: not open\n", name);
        return;
    }
    printf("%s:%s%s ", name, fcntl(fd, F_GETFL) & O_NONBLOCK ? " nonblocking" : "", fcntl(fd, F_GETFD) ? " close-on-exec" : "");
    if (S_ISSOCK(stat.st_mode)) {
        int type = 0, listens = 0;
        union {
            struct sockaddr any;
            struct sockaddr_in inet;
            struct sockaddr_un local;
        } at = {0};
        socklen_t length = sizeof type;
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
        length = sizeof listens;
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length);
        length = sizeof at;
        getsockname(fd, &at.any, &length);
        printf("%s %s%s ", word(at.any.sa_family, families, 11), word(type, types, 6), listens ? " listening" : "");
        if (at.any.sa_family == AF_INET)
            printf("%s:%d\n", inet_ntoa(at.inet.sin_addr), ntohs(at.inet.sin_port));
        else
            printf("%s\n", at.any.sa_family == AF_UNIX && length > sizeof(sa_family_t) ? at.local.sun_path : "unnamed");
    } else {
        char text[64] = "";
        ssize_t length = S_ISREG(stat.st_mode) ? pread(fd, text, sizeof text - 1, 0) : 0;
        text[length < 0 ? 0 : length] = 0;
        text[strcspn(text, "\n")] = 0;
        printf("%s %s\n", S_ISFIFO(stat.st_mode) ? "fifo" : S_ISREG(stat.st_mode) ? "file" : S_ISCHR(stat.st_mode) ? "device" : "other",
               text);
    }
}

static void report(void) {
    passed = atoi(variable("LISTEN_FDS"));
    char all[512], *rest = all;
    snprintf(all, sizeof all, "%s", variable("LISTEN_FDNAMES"));
    printf("descriptors %s for %s, watchdog %s for %s, from %s\n", variable("LISTEN_FDS"), whose("LISTEN_PID"), variable("WATCHDOG_USEC"),
           whose("WATCHDOG_PID"), variable("REMOTE_ADDR"));
    describe("input", 0);
    for (int at = 0; at < passed && at < MOST; at++) {
        const char *name = strsep(&rest, ":");
        snprintf(names[at], sizeof names[at], "%s", name ? name : "?");
        describe(names[at], FIRST + at);
    }
    for (int fd = FIRST + passed; fd < 64; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("a descriptor too many: %d\n", fd);
}

/* Takes what came for a passed descriptor, and tells it. */
static void hear(int at) {
    int fd = FIRST + at, listens = 0;
    socklen_t size = sizeof listens;
    char text[64];
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    int from = listens ? accept(fd, NULL, NULL) : fd;
    ssize_t length = read(from, text, sizeof text - 1);
    if (length > 0) {
        text[length] = 0;
        printf("heard %s %d %s\n", names[at], at, text);
    }
    if (listens)
        close(from);
}

static void store(void) {
    for (int at = 0; at < passed && at < MOST; at++)
        if (!strcmp(names[at], "pipe")) {
            say("FDSTOREREMOVE=1\nFDNAME=pipe");
            return;
        }
    for (int at = 0; at < passed && at < MOST; at++)
        if (!strcmp(names[at], "kept"))
            return;
    int file = memfd_create("kept", MFD_CLOEXEC), ends[2];
    if (write(file, "what was kept\n", 14) == 14)
        notify("FDSTORE=1\nFDNAME=kept", file);
    if (!pipe(ends))
        notify("FDSTORE=1\nFDNAME=pipe", ends[0]);
    close(file);
    close(ends[0]);
    /* systemd drops a stored pipe whose other end is gone: so both are stored. */
    notify("FDSTORE=1\nFDNAME=pipe\nFDPOLL=0", ends[1]);
    close(ends[1]);
}

static void reload(int silent) {
    static int times;
    struct timespec now;
    char text[128];
    printf("reloads\n");
    if (silent)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld", now.tv_sec * 1000000LL + now.tv_nsec / 1000);
    say(text);
    snprintf(text, sizeof text, "READY=1\nSTATUS=reloaded %d", ++times);
    say(text);
}

int main(void) {
    const char *mode = variable("MODE");
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigset_t signals;
    sigemptyset(&signals);
    for (const int *one = (const int[]){SIGTERM, SIGHUP, SIGUSR1, SIGABRT, 0}; *one; one++)
        if (*one != SIGABRT || strcmp(mode, "deaf"))
            sigaddset(&signals, *one);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (!strcmp(mode, "speak") && getenv("LISTEN_FDS"))
        dup2(FIRST, 1);
    report();
    if (!strcmp(mode, "speak")) {
        say("READY=1");
        char line[64] = "";
        if (read(passed ? FIRST : 0, line, sizeof line - 1) > 0)
            printf("heard %s", line);
        return 0;
    }
    if (!strcmp(mode, "store"))
        store();
    if (!strcmp(mode, "extend"))
        say("EXTEND_TIMEOUT_USEC=8000000");
    if (!strcmp(mode, "extend") || !strcmp(mode, "late"))
        sleep(4);
    say("READY=1\nSTATUS=up");
    say("WATCHDOG=1");
    int feeds = strcmp(mode, "watchdog") ? 0 : atoi(variable("WATCHDOG_USEC")) / 3000;
    struct pollfd all[MOST + 1] = {{.fd = signalfd(-1, &signals, SFD_CLOEXEC), .events = POLLIN}};
    int count = strcmp(mode, "listen") ? 0 : passed < MOST ? passed : MOST;
    for (int at = 0; at < count; at++)
        all[at + 1] = (struct pollfd){.fd = FIRST + at, .events = POLLIN};
    for (;;) {
        poll(all, count + 1, feeds ? feeds : -1);
        if (feeds)
            say("WATCHDOG=1");
        for (int at = 0; at < count; at++)
            if (all[at + 1].revents & POLLIN)
                hear(at);
        struct signalfd_siginfo signal;
        if (!(all[0].revents & POLLIN) || read(all[0].fd, &signal, sizeof signal) != sizeof signal)
            continue;
        if (signal.ssi_signo == SIGHUP)
            reload(!strcmp(mode, "silent"));
        else if (signal.ssi_signo == SIGUSR1) {
            say("STOPPING=1\nSTATUS=leaves by itself");
            sleep(3);
            return 0;
        } else
            return 0;
    }
}
