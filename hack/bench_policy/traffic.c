/* Connections or round trips between two network namespaces, in one process.
 *
 *   traffic connections|trips SECONDS CLIENT SERVER IP PORT
 *
 * CLIENT and SERVER are paths of namespaces. Prints how many there were, and the CPU nanoseconds of each: of both ends, with what
 * the kernel does for them in this process.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, BACKLOG = 128 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double clock_ns(clockid_t which) {
    struct timespec at;
    clock_gettime(which, &at);
    return at.tv_sec * 1e9 + at.tv_nsec;
}

static void enter(const char *path) {
    int namespace = open(path, O_RDONLY);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET)) fail(path);
    close(namespace);
}

static int new_socket(void) {
    int enabled = 1, descriptor = socket(AF_INET, SOCK_STREAM, 0);
    if (descriptor < 0) fail("socket");
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &enabled, sizeof enabled);
    return descriptor;
}

/* Sends back whatever comes, on one connection after the other. */
static void *serve(void *argument) {
    int listener = *(int *)argument, enabled = 1;
    char buffer[SIZE];
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        ssize_t size;
        if (connection < 0) continue;
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &enabled, sizeof enabled);
        while ((size = read(connection, buffer, sizeof buffer)) > 0)
            if (write(connection, buffer, size) < 0) break;
        close(connection);
    }
    return NULL;
}

/* A connection ends with a reset, so that none waits in TIME-WAIT for its port. */
static void connect_once(struct sockaddr_in *server) {
    struct linger reset = {1, 0};
    int connection = new_socket();
    if (connect(connection, (struct sockaddr *)server, sizeof *server)) fail("connect");
    setsockopt(connection, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(connection);
}

static void round_trip(int connection) {
    char buffer[SIZE] = {0};
    if (write(connection, buffer, sizeof buffer) < 0 || read(connection, buffer, sizeof buffer) <= 0) fail("round trip");
}

int main(int count, char **arguments) {
    if (count != 7) return 2;
    int trips = !strcmp(arguments[1], "trips"), listener, connection = -1, enabled = 1;
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[6]))};
    pthread_t thread;
    enter(arguments[4]);
    listener = new_socket();
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &enabled, sizeof enabled);
    if (bind(listener, (struct sockaddr *)&server, sizeof server) || listen(listener, BACKLOG)) fail("listen");
    pthread_create(&thread, NULL, serve, &listener);
    enter(arguments[3]);
    inet_pton(AF_INET, arguments[5], &server.sin_addr);
    if (trips) {
        connection = new_socket();
        if (connect(connection, (struct sockaddr *)&server, sizeof server)) fail("connect");
    }
    long done = 0;
    double used = clock_ns(CLOCK_PROCESS_CPUTIME_ID), end = clock_ns(CLOCK_MONOTONIC) + atof(arguments[2]) * 1e9;
    for (; clock_ns(CLOCK_MONOTONIC) < end; done++) {
        if (trips) round_trip(connection);
        else connect_once(&server);
    }
    printf("%ld %.0f\n", done, (clock_ns(CLOCK_PROCESS_CPUTIME_ID) - used) / done);
    fflush(stdout);
    _exit(0);
}
