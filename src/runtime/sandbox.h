/* sandbox.h - running generated Python where it can do no harm: its own user, network, mount, process and IPC namespaces, an empty
 * working directory, no privileges, limits on time, memory, files and processes.
 *
 * The file system stays readable (the interpreter needs it) but nothing of it is writable except the working directory, which is
 * removed afterwards. Where the kernel refuses namespaces, nothing is run: RUV_EUNSUPPORTED. Threads: any. Layer: runtime. */
#ifndef RUV_RUNTIME_SANDBOX_H
#define RUV_RUNTIME_SANDBOX_H

#include "ruvllm/types.h"

typedef enum ruv_sandbox_outcome {
	RUV_SANDBOX_PASSED,  /* exit code 0 */
	RUV_SANDBOX_FAILED,  /* any other exit code, or a signal */
	RUV_SANDBOX_TIMEOUT, /* stopped after the limit */
} ruv_sandbox_outcome;

/* Runs `python3 -I -c program`. n_seconds 1..600 of wall time; memory is limited to 1 GiB. */
int ruv_sandbox_python(ruv_sandbox_outcome *outcome, const char *program, int n_seconds, ruv_error *err);

#endif
