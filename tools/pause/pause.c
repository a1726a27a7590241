// The first process of every pod: it holds the pod's namespaces, reaps what the pod's containers orphan, and does
// nothing else until it is told to end.
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGINT);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &awaited, NULL) != 0) {
        return EXIT_FAILURE;
    }
    for (;;) {
        int caught = 0;
        if (sigwait(&awaited, &caught) != 0) {
            return EXIT_FAILURE;
        }
        if (caught != SIGCHLD) {
            return EXIT_SUCCESS;
        }
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
}
