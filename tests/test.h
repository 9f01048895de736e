/* test.h - cmocka with the headers that it wants before it. */
#ifndef RUV_TESTS_TEST_H
#define RUV_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ruvllm/types.h"

/* Fails with the error's own message. */
#define assert_ok(call, err)                                                                                                       \
	do {                                                                                                                       \
		int rc_ = (call);                                                                                                  \
		if (rc_)                                                                                                           \
			fail_msg("%s: %s (%s)", #call, (err).message, ruv_status_name(rc_));                                       \
	} while (0)

#endif
