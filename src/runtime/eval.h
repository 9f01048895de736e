/* eval.h - measuring a model and an encoder on questions whose answers are known, through the same prompt, citation and search code
 * as the product's loop.
 *
 * Everything is deterministic for a seed: greedy answers, seeded choice of questions and distractors. Threads: one. Layer: runtime.
 */
#ifndef RUV_RUNTIME_EVAL_H
#define RUV_RUNTIME_EVAL_H

#include "ruvllm/learn.h"
#include "ruvllm/session.h"
#include "runtime/eval_data.h"

/* Called after each question; returns whether to go on. */
typedef bool ruv_eval_progress(void *user, int n_done, int n_total);

/* ---- question answering ---- */

/* One question as it went. Valid during the callback. */
typedef struct ruv_eval_qa_row {
	const ruv_eval_row *row;
	bool answerable;    /* with the passages that it was given */
	const char *text;   /* all that the model wrote */
	const char *answer; /* the short answer in it */
	bool refused;       /* the model says that it does not know */
	double f1;
	bool exact, sentence; /* the quote stands in the right passage and holds the answer */
	bool verbatim;        /* the quote stands in some passage it was given */
	double margin;        /* by which a citation was likelier than anything else to begin it; 0 where the model does not cite */
} ruv_eval_qa_row;

typedef struct ruv_eval_qa_params {
	int n_passages;      /* in the prompt: the right one among others of the set, at a random place */
	int limit;           /* questions, a seeded sample; 0: all */
	bool random_passage; /* leave the right passage out: every question becomes unanswerable */
	int max_tokens;      /* of an answer; 0: 128 */
	double answer_share; /* of the answerable questions that should be answered; 0: no bias is looked for */
	uint64_t seed;
	const ruv_cancel *cancel;
	ruv_eval_progress *progress;
	void (*on_row)(void *user, const ruv_eval_qa_row *row);
	void *user;
} ruv_eval_qa_params;

typedef struct ruv_eval_qa_result {
	int n_answerable, n_unanswerable;
	double f1, exact;       /* means over the answerable; a refusal counts 0 */
	double sentence;        /* share of the answerable with the right sentence quoted */
	double answered;        /* share of the answerable that got an answer at all */
	double f1_answered;     /* mean F1 over those */
	double refused;         /* share of the unanswerable where the model says so */
	double verbatim;        /* share of answers whose quote stands in a passage */
	double decision_auc;    /* of the margins: how well they tell answerable questions from others; 0 without both */
	double bias;            /* to be added so that answer_share of the answerable ones are answered */
	double refused_at_bias; /* share of the unanswerable ones that are then refused */
	int n_too_long;         /* questions left out: their prompt does not fit the context */
	int64_t n_prompt_tokens, n_answer_tokens;
	double seconds;
} ruv_eval_qa_result;

int ruv_eval_qa(ruv_eval_qa_result *result, ruv_model *model, const ruv_eval_set *set, const ruv_eval_qa_params *params,
                ruv_error *err);

/* ---- retrieval ---- */

enum { RUV_EVAL_BM25, RUV_EVAL_VECTOR, RUV_EVAL_RRF, RUV_EVAL_ZSCORE, RUV_EVAL_RERANKED, RUV_EVAL_N_METHODS };

typedef struct ruv_eval_ranking {
	double recall_1, recall_5, recall_10, mrr, ndcg_10;
} ruv_eval_ranking;

typedef struct ruv_eval_retrieval_params {
	int limit; /* questions; 0: all */
	uint64_t seed;
	const ruv_cancel *cancel;
	ruv_session *reranker;       /* of the model that reads the ten best of hybrid-zscore (rerank.h); NULL: none does */
	ruv_eval_progress *progress; /* counts passages embedded and questions asked */
	void *user;
} ruv_eval_retrieval_params;

enum { RUV_EVAL_COSINE_BINS = 40 }; /* of [-1, 1] */

typedef struct ruv_eval_retrieval_result {
	int n_questions, n_passages;
	ruv_eval_ranking methods[RUV_EVAL_N_METHODS];
	int related[RUV_EVAL_COSINE_BINS];   /* cosines of questions and their passages */
	int unrelated[RUV_EVAL_COSINE_BINS]; /* of questions and other passages, one each */
	double related_mean, unrelated_mean;
	int n_methods; /* without RUV_EVAL_RERANKED where nothing reranks */
	double embed_seconds, search_seconds, rerank_seconds;
} ruv_eval_retrieval_result;

/* "bm25", "vector", "hybrid-rrf", "hybrid-zscore", "reranked" */
const char *ruv_eval_method_name(int method);

/* Stores the set's passages in a memory of their own (in a temporary directory) and asks it every question by each method. */
int ruv_eval_retrieval(ruv_eval_retrieval_result *result, ruv_embedder *embedder, const ruv_eval_set *set,
                       const ruv_eval_retrieval_params *params, ruv_error *err);

/* ---- judging ---- */

typedef struct ruv_eval_judge_params {
	int limit;
	uint64_t seed;
	const ruv_cancel *cancel;
	ruv_eval_progress *progress;
	void *user;
} ruv_eval_judge_params;

typedef struct ruv_eval_judge_result {
	int n_pairs;
	double auc;                    /* of the ratings: P(a right answer's > a wrong one's), ties half */
	double mean_right, mean_wrong; /* expected score, 1..5 */
	int right[5], wrong[5];        /* most likely digit */
	ruv_calibration support;       /* of the support by evidence and likelihood (support.h) */
	double support_right, support_wrong;
	double seconds;
} ruv_eval_judge_result;

/* Scores each answerable question's right answer and a wrong one (the answer to another question, of the same passage where there
 * is one), in two ways: the expectation over the digits 1 to 5 where the model is asked to rate, and the support (support.h). */
int ruv_eval_judge(ruv_eval_judge_result *result, ruv_model *model, const ruv_eval_set *set, const ruv_eval_judge_params *params,
                   ruv_error *err);

/* ---- drafting ---- */

typedef struct ruv_eval_draft_result {
	int n_answers;
	int64_t n_tokens, n_accepted;
	double acceptance; /* share of the target's greedy tokens that the draft model would have proposed */
} ruv_eval_draft_result;

/* How often does `draft`, reading what `target` has written so far, propose the target's next token? Greedy answers to the set's
 * questions. */
int ruv_eval_draft(ruv_eval_draft_result *result, ruv_model *target, ruv_model *draft, const ruv_eval_set *set,
                   const ruv_eval_qa_params *params, ruv_error *err);

/* ---- free generation ---- */

/* One prompt as it went. Valid during the callback. */
typedef struct ruv_eval_generate_row {
	const char *prompt, *text;
	int n_tokens;
	double log_prob; /* of the tokens, by the model's own distribution */
	double repeated; /* share of its four-word runs that stood in it before */
	bool ended;      /* by itself, not at max_tokens */
} ruv_eval_generate_row;

typedef struct ruv_eval_generate_params {
	int max_tokens; /* of a text; 0: 96 */
	bool plain;     /* continue the prompt as it is, without the chat template */
	ruv_sampling sampling;
	const ruv_cancel *cancel;
	ruv_eval_progress *progress;
	void (*on_row)(void *user, const ruv_eval_generate_row *row);
	void *user;
} ruv_eval_generate_params;

typedef struct ruv_eval_generate_result {
	int n_texts, n_ended, n_empty;
	int n_too_long; /* prompts left out: they do not fit the context */
	int64_t n_tokens, n_words;
	double perplexity;             /* of the texts, to the model that wrote them: near 1 is parroting, high is rambling */
	double distinct_1, distinct_2; /* different words and pairs of words over all texts, as shares */
	double repeated;               /* mean of the rows' */
	double seconds;
} ruv_eval_generate_result;

/* Lets the model go on from each prompt [n_prompts]. */
int ruv_eval_generate(ruv_eval_generate_result *result, ruv_model *model, const char *const *prompts, int n_prompts,
                      const ruv_eval_generate_params *params, ruv_error *err);

#endif
