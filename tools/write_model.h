/* write_model.h - what `convert` and `quantize` share: the output's name, the progress bar, Ctrl-C, the report. Layer: tools. */
#ifndef RUV_TOOLS_WRITE_MODEL_H
#define RUV_TOOLS_WRITE_MODEL_H

#include "cli.h"
#include "format/quantize.h"

/* Writes `from` (a GGUF file or a directory) as options->recipe; pool, progress and imatrix of `options` are filled in here.
 * output NULL: named after the input, in the working directory. Returns the exit code. */
int cli_write_model(const char *from, const char *output, const ruv_write_options *options, int n_threads, bool force,
                    const char *imatrix_path);

#endif
