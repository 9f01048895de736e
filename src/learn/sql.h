/* sql.h - the few calls of SQLite that learning's own files need: open, run, prepare, with our errors. Layer: learn. */
#ifndef RUV_LEARN_SQL_H
#define RUV_LEARN_SQL_H

#include <sqlite3.h>

#include "ruvllm/types.h"

/* Opens (makes) a database in WAL mode that syncs each commit; path NULL: in memory. `schema` is run when its version is 0, which
 * then becomes `version`; RUV_EUNSUPPORTED when the file's is another. */
int ruv_sql_open(sqlite3 **out, const char *path, const char *schema, int version, ruv_error *err);
/* One or more statements without results. */
int ruv_sql_run(sqlite3 *db, const char *sql, ruv_error *err);
/* Kinds of the arguments that follow: 'i' int64_t, 'd' double, 't' const char * (NULL: ""), 'b' const void * and size_t. */
int ruv_sql_prepare(sqlite3 *db, sqlite3_stmt **out, const char *sql, ruv_error *err, const char *kinds, ...);
/* Steps: 1 a row, 0 done, or a status. */
int ruv_sql_step(sqlite3_stmt *stmt, ruv_error *err);
/* Prepare, step to the end, finalize. */
int ruv_sql_do(sqlite3 *db, ruv_error *err, const char *sql, const char *kinds, ...);
/* The first column of the first row; `otherwise` when there is none. */
int ruv_sql_int(sqlite3 *db, int64_t *value, int64_t otherwise, const char *sql, ruv_error *err);
int ruv_sql_fail(sqlite3 *db, ruv_error *err);
/* A column as a string of ours; NULL when memory is out. */
char *ruv_sql_text(sqlite3_stmt *stmt, int column);

#endif
