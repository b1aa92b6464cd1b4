/* A web server on the socket that systemd passes, and with the word "load" those who ask it.
 *
 *     load VERSION                      answers each request with its version, one after the other; ends at SIGTERM, after the one it is at
 *     load load PORT RATE FILE           asks so many times a second, whatever the answers, until FILE is there; then prints
 *                                       asked=N failed=N longest=MS VERSION=N ...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void end(int number) {
    (void)number;
    ended = 1;
}

static void ready(void) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof to.sun_path)
        return;
    strcpy(to.sun_path, path);
    if (*path == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + strlen(path)) < 0)
        perror("notify");
    close(fd);
}

static int serve(const char *version) {
    struct sigaction action = {.sa_handler = end};
    sigset_t term, before;
    sigaction(SIGTERM, &action, NULL);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    signal(SIGPIPE, SIG_IGN);
    struct pollfd door = {.fd = 3, .events = POLLIN};
    ready();
    while (!ended) {
        if (ppoll(&door, 1, NULL, &before) < 0)
            continue;
        int connection = accept4(3, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0)
            continue;
        char asked[1024];
        size_t length = 0;
        ssize_t more;
        while (length < sizeof asked - 1 && (more = read(connection, asked + length, sizeof asked - 1 - length)) > 0) {
            length += more;
            asked[length] = 0;
            if (strstr(asked, "\r\n\r\n"))
                break;
        }
        dprintf(connection, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n%s\n", version);
        shutdown(connection, SHUT_WR);
        while (read(connection, asked, sizeof asked) > 0) {
        }
        close(connection);
    }
    return 0;
}

/* More than the seconds that anyone waits. */
enum { MOST = 4096, WAIT = 30 };

struct request {
    uint64_t begun;
    size_t length;
    char answer[256];
    int sent;
};

static struct pollfd open_ones[MOST];
static struct request requests[MOST];
static int asked, failed, pending, first, second;
static uint64_t longest;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000ull + time.tv_nsec / 1000;
}

static void over(int at, const char *why) {
    uint64_t took = now() - requests[at].begun;
    if (took > longest)
        longest = took;
    if (why) {
        failed++;
        fprintf(stderr, "request %d after %llu ms: %s\n", asked, (unsigned long long)took / 1000, why);
    }
    close(open_ones[at].fd);
    pending--;
    open_ones[at] = open_ones[pending];
    requests[at] = requests[pending];
}

static void ask(int port) {
    asked++;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    requests[pending] = (struct request){.begun = now()};
    open_ones[pending] = (struct pollfd){.fd = fd, .events = POLLOUT};
    pending++;
    if (fd < 0 || pending >= MOST)
        over(pending - 1, "too many wait");
    else if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        over(pending - 1, strerror(errno));
}

/* Goes on with one; false where it is over. */
static int go_on(int at) {
    static const char request[] = "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";
    struct request *one = &requests[at];
    if (!one->sent) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(open_ones[at].fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error || send(open_ones[at].fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0) {
            over(at, strerror(error ? error : errno));
            return 0;
        }
        one->sent = 1;
        open_ones[at].events = POLLIN;
        return 1;
    }
    ssize_t more = read(open_ones[at].fd, one->answer + one->length, sizeof one->answer - 1 - one->length);
    if (more > 0) {
        one->length += more;
        return 1;
    }
    if (more < 0 && errno == EAGAIN)
        return 1;
    one->answer[one->length] = 0;
    char *body = strstr(one->answer, "\r\n\r\n");
    first += body && !strcmp(body + 4, "first\n");
    second += body && !strcmp(body + 4, "second\n");
    over(at, more < 0 ? strerror(errno) : body && !strncmp(one->answer, "HTTP/1.0 200 ", 13) ? NULL : "no whole answer");
    return 0;
}

static int load(int port, int rate, const char *until) {
    uint64_t begun = now();
    for (;;) {
        int over_now = access(until, F_OK) == 0;
        if (over_now && !pending)
            break;
        uint64_t due = begun + asked * 1000000ull / rate, time = now();
        if (!over_now && time >= due) {
            ask(port);
            continue;
        }
        poll(open_ones, pending, over_now ? 100 : (int)((due - time) / 1000));
        for (int at = 0; at < pending;) {
            if (now() - requests[at].begun > WAIT * 1000000ull)
                over(at, "no answer");
            else if (!open_ones[at].revents || go_on(at))
                at++;
        }
    }
    printf("asked=%d failed=%d longest=%llu first=%d second=%d\n", asked, failed, (unsigned long long)longest / 1000, first,
           second);
    return 0;
}

int main(int count, char **words) {
    if (count == 5 && !strcmp(words[1], "load"))
        return load(atoi(words[2]), atoi(words[3]), words[4]);
    return serve(count > 1 ? words[1] : "first");
}
