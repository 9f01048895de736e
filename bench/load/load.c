/* load.c - drives an HTTP server with N concurrent streams and says what came: throughput, time to first token, time between
 * tokens.
 *
 *     load [--host 127.0.0.1] [--port 7885] [--path /v1/chat/completions] [--model NAME] --streams N --requests M [--tokens N]
 *          [--words N] [--shared N] [--seed N] [--question FILE] [--label TEXT]
 *
 * --path /v1/completions asks without a chat template, for files that have none.
 * Every request is a chat of about `words` words of its own after `shared` words that all requests begin with, streamed, greedy,
 * with `tokens` tokens wanted whatever the model says (ignore_eos). Clients are closed loops: each sends its next request when the
 * last one has ended. Counted are the tokens that the server's own usage reports, so it serves any OpenAI-compatible server alike.
 * --question FILE asks /v1/ask the file's lines in turn instead and measures whole answers.
 *
 * One thread and poll(2): the driver shares the machine with the server, so it does little. A line of JSON comes out. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STREAMS = 1024, MAX_SAMPLES = 4 << 20, BUF = 1 << 20 };

typedef struct client {
	int fd;
	char *in;
	size_t n_in;
	double sent, last; /* seconds; last: of the latest token */
	int n_events;
	int tokens;
	int status;
} client;

static const char *host = "127.0.0.1", *path, *model, *label = "";
static int port = 7885, n_streams = 1, n_requests = 16, n_tokens = 64, n_words = 100, n_shared;
static unsigned seed = 1;
static char **questions;
static int n_questions;
static float *first, *between, *whole;
static int n_first, n_between, n_whole, n_sent, n_ok, n_failed;
static long long total_tokens, prompt_tokens, cached_tokens;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int dial(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || inet_pton(AF_INET, host, &to.sin_addr) != 1 || connect(fd, (struct sockaddr *)&to, sizeof to))
		die("connecting");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

/* Words that every tokenizer knows, the same for the same seed. */
static size_t words(char *out, int n, unsigned s)
{
	static const char *const list[] = {"time",    "year",    "people",   "way",    "day",   "man",    "thing",   "woman",
	                                   "life",    "child",   "world",    "school", "state", "family", "student", "group",
	                                   "country", "problem", "hand",     "part",   "place", "case",   "week",    "company",
	                                   "system",  "program", "question", "work",   "night", "point",  "home",    "water"};
	size_t len = 0;

	for (int i = 0; i < n; i++) {
		s = s * 1664525u + 1013904223u;
		len += (size_t)sprintf(out + len, "%s ", list[(s >> 20) % 32]);
	}
	return len;
}

static void send_request(client *c)
{
	static char body[1 << 20], head[512];
	size_t n;
	int h;

	if (n_questions) {
		n = (size_t)sprintf(body, "{\"question\":\"%s\"}", questions[n_sent % n_questions]);
	} else {
		n = (size_t)sprintf(
		    body,
		    "{\"model\":\"%s\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"temperature\":0,"
		    "\"ignore_eos\":true,\"max_tokens\":%d,%s",
		    model, n_tokens, strstr(path, "/chat/") ? "\"messages\":[{\"role\":\"user\",\"content\":\"" : "\"prompt\":\"");
		n += words(body + n, n_shared, 12345);
		n += words(body + n, n_words, seed * 7919u + (unsigned)n_sent);
		n += (size_t)sprintf(body + n, "%s", strstr(path, "/chat/") ? "\"}]}" : "\"}");
	}
	h = sprintf(head, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
	            path, n);
	c->n_in = 0;
	c->n_events = c->tokens = c->status = 0;
	c->last = 0;
	c->sent = now();
	n_sent++;
	if (write(c->fd, head, (size_t)h) != h || write(c->fd, body, n) != (ssize_t)n)
		die("sending");
}

static long long number_after(const char *text, const char *key)
{
	const char *p = strstr(text, key);

	return p ? strtoll(p + strlen(key) + strspn(p + strlen(key), ": "), NULL, 10) : 0;
}

/* A line of the stream. Returns true at its end. */
static int take_line(client *c, char *line)
{
	double t;

	if (!strncmp(line, "HTTP/1.1 ", 9))
		c->status = atoi(line + 9);
	if (!strcmp(line, "0\r")) /* the chunk that ends the body */
		return 1;
	if (strncmp(line, "data: ", 6))
		return 0;
	if ((strstr(line, "\"content\":\"") && !strstr(line, "\"content\":\"\"")) ||
	    (strstr(line, "\"text\":\"") && !strstr(line, "\"text\":\"\""))) {
		t = now();
		if (!c->n_events++)
			first[n_first < MAX_SAMPLES ? n_first++ : 0] = (float)(t - c->sent);
		else
			between[n_between < MAX_SAMPLES ? n_between++ : 0] = (float)(t - c->last);
		c->last = t;
	}
	if (strstr(line, "\"usage\":{")) {
		c->tokens = (int)number_after(line, "\"completion_tokens\"");
		prompt_tokens += number_after(line, "\"prompt_tokens\"");
		cached_tokens += number_after(line, "\"cached_tokens\"");
	}
	return 0;
}

/* What has come. Returns true when the answer is whole. */
static int take(client *c)
{
	ssize_t n = read(c->fd, c->in + c->n_in, BUF - 1 - c->n_in);
	char *line = c->in, *end;
	int done = 0;

	if (n <= 0)
		return -1;
	c->n_in += (size_t)n;
	c->in[c->n_in] = 0;
	if (n_questions) { /* one piece: a head and as many bytes as it says */
		char *body = strstr(c->in, "\r\n\r\n");

		if (!body)
			return 0;
		c->status = atoi(c->in + 9);
		if ((long long)(c->n_in - (size_t)(body + 4 - c->in)) < number_after(c->in, "Content-Length"))
			return 0;
		c->tokens = (int)number_after(body, "\"completion_tokens\"");
		return 1;
	}
	while ((end = strchr(line, '\n'))) {
		*end = 0;
		done = take_line(c, line) || done;
		line = end + 1;
	}
	c->n_in -= (size_t)(line - c->in);
	memmove(c->in, line, c->n_in + 1);
	if (c->status && c->status != 200)
		return -1;
	return done;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static double quantile(float *v, int n, double q)
{
	if (!n)
		return 0;
	qsort(v, (size_t)n, sizeof *v, by_value);
	return (double)v[(int)(q * (n - 1) + 0.5)] * 1e3;
}

static void read_questions(const char *file)
{
	FILE *f = fopen(file, "r");
	char line[4096];

	if (!f)
		die(file);
	questions = calloc(100000, sizeof *questions);
	while (n_questions < 100000 && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\r\n")] = 0;
		if (*line && !strpbrk(line, "\"\\"))
			questions[n_questions++] = strdup(line);
	}
	fclose(f);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"host", 1, 0, 'h'},
	                                        {"port", 1, 0, 'p'},
	                                        {"path", 1, 0, 'P'},
	                                        {"model", 1, 0, 'm'},
	                                        {"streams", 1, 0, 's'},
	                                        {"requests", 1, 0, 'r'},
	                                        {"tokens", 1, 0, 't'},
	                                        {"words", 1, 0, 'w'},
	                                        {"shared", 1, 0, 'S'},
	                                        {"seed", 1, 0, 'e'},
	                                        {"question", 1, 0, 'q'},
	                                        {"label", 1, 0, 'l'},
	                                        {0}};
	static client clients[MAX_STREAMS];
	struct pollfd polls[MAX_STREAMS];
	double began, seconds;
	int o, n_live;

	model = "default";
	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (o) {
		case 'h':
			host = optarg;
			break;
		case 'p':
			port = atoi(optarg);
			break;
		case 'P':
			path = optarg;
			break;
		case 'm':
			model = optarg;
			break;
		case 's':
			n_streams = atoi(optarg);
			break;
		case 'r':
			n_requests = atoi(optarg);
			break;
		case 't':
			n_tokens = atoi(optarg);
			break;
		case 'w':
			n_words = atoi(optarg);
			break;
		case 'S':
			n_shared = atoi(optarg);
			break;
		case 'e':
			seed = (unsigned)atoi(optarg);
			break;
		case 'q':
			read_questions(optarg);
			break;
		case 'l':
			label = optarg;
			break;
		default:
			return 2;
		}
	}
	if (!path)
		path = n_questions ? "/v1/ask" : "/v1/chat/completions";
	if (n_streams < 1 || n_streams > MAX_STREAMS || n_words + n_shared > 60000) {
		fprintf(stderr, "load: --streams from 1 to %d, at most 60000 words\n", MAX_STREAMS);
		return 2;
	}
	first = malloc(sizeof *first * MAX_SAMPLES);
	between = malloc(sizeof *between * MAX_SAMPLES);
	whole = malloc(sizeof *whole * MAX_SAMPLES);
	if (!first || !between || !whole)
		die("memory");
	if (n_streams > n_requests)
		n_requests = n_streams;
	for (int i = 0; i < n_streams; i++) {
		clients[i].in = malloc(BUF);
		clients[i].fd = dial();
	}
	began = now();
	for (int i = 0; i < n_streams; i++)
		send_request(&clients[i]);
	n_live = n_streams;
	while (n_live) {
		for (int i = 0; i < n_streams; i++)
			polls[i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
		if (poll(polls, (nfds_t)n_streams, 600000) <= 0)
			die("nothing comes");
		for (int i = 0; i < n_streams; i++) {
			client *c = &clients[i];
			int done;

			if (c->fd < 0 || !(polls[i].revents & (POLLIN | POLLHUP | POLLERR)))
				continue;
			done = take(c);
			if (!done)
				continue;
			if (done < 0 || c->status != 200) {
				if (!n_failed++)
					fprintf(stderr, "load: status %d: %.300s\n", c->status, c->in);
				close(c->fd);
				c->fd = n_sent < n_requests ? dial() : -1;
			} else {
				n_ok++;
				total_tokens += c->tokens;
				whole[n_whole < MAX_SAMPLES ? n_whole++ : 0] = (float)(now() - c->sent);
			}
			if (n_sent < n_requests) {
				if (done > 0) { /* some servers close after a stream: each request has its own connection */
					close(c->fd);
					c->fd = dial();
				}
				send_request(c);
			} else {
				if (c->fd >= 0)
					close(c->fd);
				c->fd = -1;
				n_live--;
			}
		}
	}
	seconds = now() - began;
	printf(
	    "{\"label\": \"%s\", \"streams\": %d, \"requests\": %d, \"failed\": %d, \"seconds\": %.2f, \"requests_per_s\": %.2f, "
	    "\"tokens_per_s\": %.1f, \"prompt_tokens\": %lld, \"cached_tokens\": %lld, \"first_ms\": {\"p50\": %.1f, \"p99\": "
	    "%.1f}, "
	    "\"between_ms\": {\"p50\": %.2f, \"p99\": %.2f}, \"whole_ms\": {\"p50\": %.1f, \"p99\": %.1f}}\n",
	    label, n_streams, n_ok, n_failed, seconds, n_ok / seconds, (double)total_tokens / seconds, prompt_tokens, cached_tokens,
	    quantile(first, n_first, 0.5), quantile(first, n_first, 0.99), quantile(between, n_between, 0.5),
	    quantile(between, n_between, 0.99), quantile(whole, n_whole, 0.5), quantile(whole, n_whole, 0.99));
	return n_failed > 0;
}
