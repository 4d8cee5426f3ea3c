/*
 * What runs under secret-init in the tests of --supervise. It is in C, since
 * Go's runtime and shells keep signals to themselves that have to be seen here.
 *
 *   listen [N]   say each signal that comes, and so do N children in the same
 *                group and one in a session of its own; the second TERM is the end
 *   die SIGNAL   end by a signal, with its default action
 *   wait         every default action, and no end
 *   orphans N    N grandchildren lose their parent and end at the same moment;
 *                then as wait
 *   daemon       say the pid of a grandchild that has left session and parent,
 *                and that ends at a HUP; then as wait
 *   leave        leave the group for another one, then listen
 *   inherited N  tell descriptor N what execve(2) has left to the program
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The C library leaves 32 and 33 out of every set. */
static const unsigned long all = ~0UL, none = 0;

static void mask(const unsigned long *set)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, set, NULL, sizeof *set);
}

/* One write, so that lines of many processes do not mix. */
#define SAY(...) do { \
	char line[256]; \
	int n = snprintf(line, sizeof line, __VA_ARGS__); \
	if (write(1, line, n) != n) _exit(99); \
} while (0)

struct action {
	void *handler;
	unsigned long flags;
	void *restorer;
	unsigned long mask;
};

static void standard_actions(void)
{
	struct action standard = {0};
	for (int n = 1; n <= 64; n++)
		syscall(SYS_rt_sigaction, n, &standard, NULL, sizeof all);
	mask(&none);
}

static void wait_for_ever(void)
{
	standard_actions();
	SAY("waiting\n");
	for (;;)
		pause();
}

static void listen_for_signals(const char *who)
{
	int terminated = 0;
	SAY("%s listens\n", who);
	for (;;) {
		siginfo_t info;
		long got = syscall(SYS_rt_sigtimedwait, &all, &info, NULL, sizeof all);
		if (got < 0)
			continue;
		SAY("%s got %ld\n", who, got);
		if (got == SIGTERM && ++terminated == 2)
			_exit(42);
	}
}

static void listen_with_children(int children)
{
	mask(&all);
	for (int i = 0; i <= children && children > 0; i++) {
		if (fork() == 0) {
			char who[16];
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			snprintf(who, sizeof who, "child%d", i);
			if (i == 0 && setsid() < 0)
				_exit(98);
			listen_for_signals(i == 0 ? "stranger" : who);
		}
	}
	listen_for_signals("command");
}

static void orphans(int n)
{
	int alive[2], ready[2];
	char byte;
	if (pipe(alive) || pipe(ready))
		exit(97);
	if (fork() == 0) {
		for (int i = 0; i < n; i++) {
			pid_t pid = fork();
			if (pid < 0)
				_exit(96);
			if (pid == 0) {
				close(alive[1]);
				close(ready[0]);
				close(ready[1]);
				_exit(read(alive[0], &byte, 1) != 0);
			}
		}
		_exit(0);
	}
	close(ready[1]);
	while (read(ready[0], &byte, 1) > 0)
		;
	SAY("orphans wait\n");
	signal(SIGHUP, SIG_IGN);
	/* A byte from the test ends them all. */
	if (read(0, &byte, 1) != 1)
		exit(95);
	close(alive[1]);
	wait_for_ever();
}

static void make_daemon(void)
{
	int told[2];
	char byte;
	if (pipe(told))
		exit(97);
	if (fork() == 0) {
		setsid();
		if (fork() == 0) {
			close(told[0]);
			standard_actions();
			SAY("daemon %ld\n", syscall(SYS_getpid));
			close(told[1]);
			for (;;)
				pause();
		}
		_exit(0);
	}
	close(told[1]);
	while (read(told[0], &byte, 1) > 0)
		;
	wait_for_ever();
}

static void inherited(int fd_out)
{
	FILE *out = fdopen(fd_out, "w");
	unsigned long blocked = 0;
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, sizeof blocked);
	fprintf(out, "mask %016lx\n", blocked);
	for (int n = 1; n <= 64; n++) {
		struct action action = {0};
		syscall(SYS_rt_sigaction, n, NULL, &action, sizeof all);
		fprintf(out, "signal %d: %s\n", n, action.handler == SIG_DFL ? "default" : action.handler == SIG_IGN ? "ignored" : "caught");
	}
	for (int fd = 0; fd < 1024; fd++) {
		int flags = fcntl(fd, F_GETFD);
		if (flags >= 0)
			fprintf(out, "descriptor %d: flags %x, status %x\n", fd, flags, fcntl(fd, F_GETFL));
	}
	for (int what = 0; what < 16; what++) {
		struct rlimit limit;
		if (getrlimit(what, &limit) == 0)
			fprintf(out, "limit %d: %lu %lu\n", what, (unsigned long)limit.rlim_cur, (unsigned long)limit.rlim_max);
	}
	fprintf(out, "session %s\n", getsid(0) == getpid() ? "leader" : "of another");
	fprintf(out, "nice %d\n", getpriority(PRIO_PROCESS, 0));
	fprintf(out, "dumpable %d\n", prctl(PR_GET_DUMPABLE));
	fprintf(out, "no new privileges %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	fprintf(out, "slack %d\n", prctl(PR_GET_TIMERSLACK));
	fprintf(out, "subreaper %d\n", ({ int on = -1; prctl(PR_GET_CHILD_SUBREAPER, &on); on; }));
	if (fclose(out))
		exit(94);
}

static void leave(void)
{
	pid_t other = fork();
	if (other == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	if (setpgid(other, other) || setpgid(0, other))
		exit(93);
	listen_with_children(0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int n = argc > 2 ? atoi(argv[2]) : 0;
	if (!strcmp(what, "listen"))
		listen_with_children(n);
	if (!strcmp(what, "wait"))
		wait_for_ever();
	if (!strcmp(what, "orphans"))
		orphans(n);
	if (!strcmp(what, "leave"))
		leave();
	if (!strcmp(what, "daemon"))
		make_daemon();
	if (!strcmp(what, "inherited")) {
		inherited(n);
		return 0;
	}
	if (!strcmp(what, "die")) {
		struct rlimit no_core = {0, 0};
		setrlimit(RLIMIT_CORE, &no_core);
		standard_actions();
		syscall(SYS_kill, getpid(), n);
		return 100;
	}
	fprintf(stderr, "command: see the first lines of its source\n");
	return 64;
}
