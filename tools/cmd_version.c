/* cmd_version.c - ruvllm version: what this binary is. */
#include "cli.h"

int cmd_version(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "version", .usage = "", .summary = "Print the version and how the program was built."};
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (cli.json)
		return cli_json_print(json_pack("{s:s, s:s, s:s, s:[s]}", "version", ruv_version(), "compiler", RUV_COMPILER,
		                                "build", RUV_BUILD_TYPE, "backends", "cpu"));
	printf("ruvllm %s (%s, %s; backends: cpu)\n", ruv_version(), RUV_COMPILER, RUV_BUILD_TYPE);
	return CLI_EXIT_OK;
}
