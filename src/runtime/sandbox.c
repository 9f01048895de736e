/* sandbox.c - a child in namespaces of its own, a grandchild that runs the program; see sandbox.h.
 *
 * The child enters the namespaces (as an ordinary user by way of a user namespace), makes every mount read-only, mounts an empty
 * tmpfs as the working directory, and forks: the grandchild is process 1 of the new process namespace, so that its end takes
 * every process that it started with it. The child reports setting up through a pipe: what fails there is our error, not the
 * program's. */
#include "runtime/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"

static const char work_dir[] = "/tmp"; /* covered by the tmpfs inside the sandbox */

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));
	if (fd >= 0)
		close(fd);
	return n == (ssize_t)strlen(text) ? 0 : -1;
}

/* Namespaces and mounts; NULL when all went well, else what did not (errno says why). */
static const char *enter(void)
{
	char map[64];
	struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID};
	unsigned uid = geteuid(), gid = getegid();

	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS))
		return "new namespaces";
	snprintf(map, sizeof map, "0 %u 1", uid);
	if (write_text("/proc/self/setgroups", "deny") || write_text("/proc/self/uid_map", map))
		return "mapping the user";
	snprintf(map, sizeof map, "0 %u 1", gid);
	if (write_text("/proc/self/gid_map", map))
		return "mapping the group";
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return "private mounts";
	if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &read_only, sizeof read_only))
		return "a read-only file system";
	if (mount("none", work_dir, "tmpfs", MS_NOSUID | MS_NODEV, "size=64m,mode=0700"))
		return "an empty working directory";
	if (chdir(work_dir))
		return "the working directory";
	return NULL;
}

static void limit(int resource, rlim_t value)
{
	struct rlimit r = {value, value};
	setrlimit(resource, &r);
}

/* Process 1 of the sandbox. */
static void run_program(const char *program, int n_seconds)
{
	char *const argv[] = {"python3", "-I", "-c", (char *)(uintptr_t)program, NULL};
	char *const envp[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", NULL};
	int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* the child is killed at the time limit */
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	limit(RLIMIT_CPU, (rlim_t)n_seconds);
	limit(RLIMIT_AS, (rlim_t)1 << 30);
	limit(RLIMIT_FSIZE, 16 << 20);
	limit(RLIMIT_NPROC, 64);
	limit(RLIMIT_NOFILE, 64);
	limit(RLIMIT_CORE, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	execvpe("python3", argv, envp);
	_exit(127);
}

/* The child: sets up, reports one message through `report` ("" when all went well), waits for the program. */
static void run_child(const char *program, int n_seconds, int report)
{
	char message[128] = "";
	const char *what;
	pid_t pid;
	int status;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	what = enter();
	if (what)
		snprintf(message, sizeof message, "%s: %s", what, strerror(errno));
	if (write(report, message, strlen(message) + 1) < 0 || what)
		_exit(126);
	pid = fork();
	if (pid == 0)
		run_program(program, n_seconds);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		_exit(126);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 125);
}

/* Waits until the child has ended; kills it at the limit. */
static ruv_sandbox_outcome await(pid_t pid, int n_seconds)
{
	int64_t end_ns = ruv_clock_now_ns() + (int64_t)n_seconds * 1000000000;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (ruv_clock_now_ns() > end_ns) {
			kill(pid, SIGKILL); /* its process 1 dies with it, and everything in the sandbox with that */
			waitpid(pid, &status, 0);
			return RUV_SANDBOX_TIMEOUT;
		}
		usleep(2000);
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? RUV_SANDBOX_PASSED : RUV_SANDBOX_FAILED;
}

int ruv_sandbox_python(ruv_sandbox_outcome *outcome, const char *program, int n_seconds, ruv_error *err)
{
	char message[128] = "the child said nothing";
	int ends[2];
	pid_t pid;
	ssize_t n;

	if (n_seconds < 1 || n_seconds > 600)
		return ruv_fail(err, RUV_EINVAL, "sandbox", "a limit of %d seconds is not within 1 to 600", n_seconds);
	if (strlen(program) > 100000)
		return ruv_fail(err, RUV_ELIMIT, "sandbox", "the program has %zu bytes, at most 100000 are run", strlen(program));
	if (pipe2(ends, O_CLOEXEC))
		return ruv_fail_errno(err, RUV_EIO, errno, "sandbox", "cannot make a pipe");
	pid = fork();
	if (pid == 0) {
		close(ends[0]);
		run_child(program, n_seconds, ends[1]);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return ruv_fail_errno(err, RUV_ENOMEM, errno, "sandbox", "cannot start a process");
	}
	n = read(ends[0], message, sizeof message - 1);
	close(ends[0]);
	if (n >= 0)
		message[n] = '\0';
	if (n != 1 || *message) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return ruv_fail(err, RUV_EUNSUPPORTED, "sandbox",
		                "generated code is run only in a sandbox, and this system does not allow one: %s", message);
	}
	*outcome = await(pid, n_seconds);
	return RUV_OK;
}
