/* A service as small as can be: says READY=1 at once, ends at SIGTERM at once. To each connection on a socket that systemd passed it
 * tells what else was passed. With an argument it ends at once, but one that is a notification it sends to systemd, by every way;
 * "silent" never says that it is ready, "crash" fails after two seconds, "once" fails in every boot (BOOT) but the first one that it ran
 * in. "format-N" before it: keeps state in format N. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void end(int number) {
    (void)number;
    ended = 1;
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "-";
}

static void tell(const char *path, const char *text) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof to.sun_path)
        return;
    strcpy(to.sun_path, path);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (*path == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&to, length) < 0)
        perror("notify");
    close(fd);
}

static void notify(const char *text) {
    tell(getenv("NOTIFY_SOCKET"), text);
}

/* By every way to systemd that there is or was. */
static void attack(const char *text) {
    notify(text);
    tell("/run/systemd/notify", text);
    tell("@/run/systemd/notify", text);
    tell("@/org/freedesktop/systemd1/notify", text);
    tell("/proc/1/root/run/systemd/notify", text);
}

static void answer(int fd) {
    char secret[64] = "-", path[256];
    snprintf(path, sizeof path, "%s/secret", variable("CREDENTIALS_DIRECTORY"));
    int file = open(path, O_RDONLY);
    if (file >= 0) {
        ssize_t length = read(file, secret, sizeof secret - 1);
        secret[length < 0 ? 0 : length] = 0;
        close(file);
    }
    dprintf(fd, "fds=%s names=%s pid=%s credential=%s uid=%d\n", variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"),
            atoi(variable("LISTEN_PID")) == getpid() ? "own" : variable("LISTEN_PID"), secret, getuid());
}

/* Whether this is another boot than the first. */
static int another_boot(void) {
    char first[64] = "";
    int file = open("/var/lib/app/data/boot", O_RDWR | O_CREAT, 0600);
    if (read(file, first, sizeof first - 1) > 0)
        return strcmp(first, variable("BOOT")) != 0;
    return write(file, variable("BOOT"), strlen(variable("BOOT"))) < 0;
}

/* Brings the state to our format; whether it is newer than that. */
static int is_newer(int own) {
    char found[16] = "";
    int file = open("/var/lib/app/data/format", O_RDWR | O_CREAT, 0600);
    if (file < 0 || (read(file, found, sizeof found - 1) > 0 && atoi(found) > own))
        return 1;
    if (ftruncate(file, 0) || lseek(file, 0, SEEK_SET) || dprintf(file, "%d\n", own) < 0)
        return 1;
    return close(file);
}

int main(int count, char **words) {
    if (count > 1 && !strncmp(words[1], "format-", 7)) {
        if (is_newer(atoi(words[1] + 7)))
            return 1;
        words++;
        count--;
    }
    int silent = count > 1 && !strcmp(words[1], "silent"), crash = count > 1 && !strcmp(words[1], "crash");
    int once = count > 1 && !strcmp(words[1], "once");
    if (once)
        crash = another_boot();
    if (count > 1 && !silent && !crash && !once && !strchr(words[1], '='))
        return 0; /* as true(1) */
    struct sigaction action = {.sa_handler = end};
    sigset_t term, before;
    sigaction(SIGTERM, &action, NULL);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    int passed = atoi(variable("LISTEN_FDS"));
    struct pollfd sockets[8];
    for (int at = 0; at < passed && at < 8; at++)
        sockets[at] = (struct pollfd){.fd = 3 + at, .events = POLLIN};
    if (!silent)
        notify("READY=1\nSTATUS=as small as can be");
    for (int at = 1; at < count && strchr(words[at], '='); at++)
        attack(words[at]);
    struct timespec soon = {.tv_sec = 2};
    while (!ended) {
        int ready = ppoll(sockets, passed < 8 ? passed : 8, crash ? &soon : NULL, &before);
        if (ready == 0)
            return 1;
        if (ready < 0)
            continue;
        for (int at = 0; at < passed && at < 8; at++) {
            if (!sockets[at].revents)
                continue;
            int connection = accept(sockets[at].fd, NULL, NULL);
            if (connection >= 0) {
                answer(connection);
                shutdown(connection, SHUT_WR);
                char ignored[256];
                while (read(connection, ignored, sizeof ignored) > 0) {
                }
                close(connection);
            }
        }
    }
    return 0;
}
