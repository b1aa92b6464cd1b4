/* A service whose health can be chosen, and the programs that its image ships to test it.
 *
 *     serve PORT STATUS [SECONDS]   answers each request with STATUS; for so long at first with 503; says whose it is
 *     end CODE                      says so and ends with CODE
 *     hang                          and a child with it, both deaf to SIGTERM; never ends
 *     confined UID                  ends with 0 where it is that user, without capabilities, beside the service
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The user whose connection comes from this port, as the kernel's table has it. */
static int owner(int port) {
    char line[512];
    unsigned local, state;
    int uid;
    FILE *table = fopen("/proc/net/tcp", "r");
    while (table && fgets(line, sizeof line, table))
        if (sscanf(line, " %*d: %*x:%x %*x:%*x %x %*x:%*x %*x:%*x %*x %d", &local, &state, &uid) == 3 && (int)local == port)
            return fclose(table), uid;
    return table ? fclose(table), -1 : -1;
}

static int serve(int port, const char *status, int late) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int yes = 1, door = socket(AF_INET, SOCK_STREAM, 0);
    time_t start = time(NULL);
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(door, (struct sockaddr *)&at, sizeof at) || listen(door, 16)) {
        perror("listening");
        return 1;
    }
    for (;;) {
        char request[4096];
        struct sockaddr_in from = {0};
        socklen_t length = sizeof from;
        int guest = accept(door, (struct sockaddr *)&from, &length);
        if (guest < 0)
            continue;
        if (read(guest, request, sizeof request) > 0) {
            printf("asked by user %d\n", owner(ntohs(from.sin_port)));
            fflush(stdout);
            dprintf(guest, "HTTP/1.1 %s x\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 2\r\nConnection: close\r\n\r\n.\n",
                    time(NULL) - start < late ? "503" : status);
        }
        close(guest);
    }
}

static int confined(unsigned uid) {
    char line[256];
    unsigned long long held = 1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        sscanf(line, "CapEff: %llx", &held);
    /* Init of the container is the service. */
    FILE *first = fopen("/proc/1/comm", "r");
    int beside = first && fgets(line, sizeof line, first) && !strcmp(line, "tiny\n");
    printf("uid %d, capabilities %llx, beside the service: %d\n", getuid(), held, beside);
    return getuid() == uid && !held && beside ? 0 : 1;
}

static void end(int number) {
    _exit(number == SIGTERM ? 0 : 1);
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    if (!strcmp(what, "serve") && count > 3) {
        signal(SIGTERM, end);
        return serve(atoi(words[2]), words[3], count > 4 ? atoi(words[4]) : 0);
    }
    if (!strcmp(what, "end") && count > 2) {
        printf("first line\nended as told\n");
        return atoi(words[2]);
    }
    if (!strcmp(what, "confined") && count > 2)
        return confined(atoi(words[2]));
    if (!strcmp(what, "hang")) {
        signal(SIGTERM, SIG_IGN);
        fork();
        for (;;)
            pause();
    }
    return 2;
}
