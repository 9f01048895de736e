/* pq.h - product quantization: a vector in one byte a part, compared through tables of squared distances.
 *
 * Jegou, Douze & Schmid 2011. A vector of `dimension` floats is cut into n_parts pieces of the same length; each piece becomes the
 * number of the nearest of 256 centroids, which k-means found for that piece in a sample. The squared distance of a query to a code
 * is the sum of n_parts entries of a table that is made once for the query (asymmetric: the query itself is not coded). Of unit
 * vectors the order is the one of the cosine.
 *
 * It needs training where codes.h needs none, and its distances cost a load a part: docs/vector-search.md has both beside each
 * other, measured. Threads: training uses a pool; a trained one is const. Layer: memory (uses base). */
#ifndef RUV_MEMORY_PQ_H
#define RUV_MEMORY_PQ_H

#include "base/pool.h"
#include "ruvllm/types.h"

typedef struct ruv_pq ruv_pq;

enum { RUV_PQ_CENTROIDS = 256 };

/* Learns the centroids.
 *   vectors   [n, dimension], n >= 256, finite; some ten thousand suffice
 *   n_parts   divides the dimension; also the bytes of a code
 *   n_rounds  of k-means, at least 1; ten are plenty
 *   pool      NULL: this thread alone. The result does not depend on it
 * RUV_EINVAL, RUV_ENOMEM. */
int ruv_pq_train(ruv_pq **out, const float *vectors, int64_t n, int dimension, int n_parts, int n_rounds, uint64_t seed,
                 ruv_pool *pool, ruv_error *err);
/* NULL is fine. */
void ruv_pq_free(ruv_pq *pq);
int ruv_pq_n_parts(const ruv_pq *pq);

/* code [n_parts] */
void ruv_pq_encode(const ruv_pq *pq, unsigned char *code, const float *vector);
/* What a code stands for: vector [dimension]. */
void ruv_pq_decode(const ruv_pq *pq, float *vector, const unsigned char *code);
/* tables [n_parts, RUV_PQ_CENTROIDS]: squared distances of the query's pieces to the centroids. */
void ruv_pq_tables(const ruv_pq *pq, float *tables, const float *query);
/* distances [n]: squared, of codes [n, n_parts]. */
void ruv_pq_distances(float *distances, const ruv_pq *pq, const float *tables, const unsigned char *codes, int64_t n);

#endif
