/* Runs commands in turn and tells what each run has cost: meter ROUNDS COMMAND...
 * Each command is one argument, its words divided by blanks. A line for each run, in microseconds:
 * NUMBER WALL USER SYSTEM */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long micros(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int main(int count, char **words) {
    int rounds = count > 2 ? atoi(words[1]) : 0;
    int commands = count - 2;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, 2, 1);
    for (int round = 0; round < rounds; round++) {
        for (int turn = 0; turn < commands; turn++) {
            /* Who comes after whom changes, so that no one always finds the caches of the same neighbour. */
            int at = round % 2 ? commands - 1 - turn : turn;
            char *copy = strdup(words[2 + at]), *arguments[64] = {NULL};
            int length = 0;
            for (char *word = strtok(copy, " "); word && length < 63; word = strtok(NULL, " "))
                arguments[length++] = word;
            pid_t child;
            int status;
            struct rusage used;
            long begin = micros();
            if (posix_spawn(&child, arguments[0], &actions, NULL, arguments, environ) != 0 || wait4(child, &status, 0, &used) != child ||
                status != 0) {
                fprintf(stderr, "%s: failed\n", words[2 + at]);
                return 1;
            }
            long wall = micros() - begin;
            printf("%d %ld %ld %ld\n", at, wall, used.ru_utime.tv_sec * 1000000 + used.ru_utime.tv_usec,
                   used.ru_stime.tv_sec * 1000000 + used.ru_stime.tv_usec);
            free(copy);
        }
    }
    return rounds > 0 ? 0 : 2;
}
