/* Apache opens its sockets itself. Loaded before it (LD_PRELOAD), this gives it the one that systemd listens on for it, where there is one
 * with the port that it wants: see sd_listen_fds(3). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where the port stands is the same for IPv4 and IPv6. */
static int port(const struct sockaddr *address) {
    int internet = address->sa_family == AF_INET || address->sa_family == AF_INET6;
    return internet ? ntohs(((const struct sockaddr_in *)address)->sin_port) : -1;
}

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    const char *passed = getenv("LISTEN_FDS");
    for (int one = 3; passed && port(address) >= 0 && one < 3 + atoi(passed); one++) {
        struct sockaddr_storage bound;
        socklen_t size = sizeof bound;
        if (!getsockname(one, (struct sockaddr *)&bound, &size) && port((struct sockaddr *)&bound) == port(address))
            return dup3(one, fd, O_CLOEXEC) < 0 ? -1 : 0;
    }
    return syscall(SYS_bind, fd, address, length);
}
