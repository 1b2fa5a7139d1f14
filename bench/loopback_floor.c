/* What no target on this machine can pass: requests and answers of the same sizes over the loopback, and nothing else.

       loopback_floor REQUEST ANSWER DEPTH SECONDS   ->   "RATE PROCESSOR": a second, and the server's for 100,000

   A child answers whatever whole requests have come with one send; the parent keeps DEPTH requests under way.  Both
   sleep when there is nothing to do.  */

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 64 << 20, RECEIVED = 1 << 20 };

static char buffer[BUFFER];

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static void send_whole(int to, size_t octets)
{
    while (octets) {
        ssize_t sent = send(to, buffer, octets, MSG_NOSIGNAL);
        if (sent < 0)
            _exit(0); /* the other side has ended */
        octets -= (size_t)sent;
    }
}

/* Wait for input; return how many whole messages are there by now. */
static long whole(int from, size_t message, size_t *begun)
{
    ssize_t got = recv(from, buffer, RECEIVED, 0);
    if (got <= 0)
        _exit(0);
    *begun += (size_t)got;
    long count = (long)(*begun / message);
    *begun %= message;
    return count;
}

int main(int count, char **words)
{
    if (count != 5)
        return 2;
    size_t request = strtoul(words[1], NULL, 10), answer = strtoul(words[2], NULL, 10), begun = 0;
    size_t depth = strtoul(words[3], NULL, 10);
    double wanted = strtod(words[4], NULL);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    if (bind(listener, (void *)&at, length) || listen(listener, 1) || getsockname(listener, (void *)&at, &length))
        return 1;
    pid_t child = fork();
    if (!child) {
        int peer = accept(listener, NULL, NULL);
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        for (;;)
            send_whole(peer, (size_t)whole(peer, request, &begun) * answer);
    }
    int peer = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(peer, (void *)&at, length))
        return 1;
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    long done = 0;
    double start = seconds(), took;
    send_whole(peer, depth * request);
    do {
        long answers = whole(peer, answer, &begun);
        done += answers;
        if (answers)
            send_whole(peer, (size_t)answers * request);
        took = seconds() - start;
    } while (took < wanted);
    close(peer);
    struct rusage used;
    wait4(child, NULL, 0, &used);
    double processor = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    printf("%.0f %.3f\n", done / took, processor / done * 1e5);
    return 0;
}
