/* base_text.c - the anchors (plain prose, and passages of this project's own handbook) and the base suite. No sentence of one
 * stands in the other. */
#include "learn/base_text.h"

#include <stddef.h>

const char *const ruv_learn_anchors[] = {
    "Rivers carry more than water. A stream that runs down from the hills takes sand and clay with it, and where the land becomes "
    "flat "
    "it lets them fall again.",
    "The first railway of the country was opened in 1835 and was only six kilometres long, but within twenty years the lines "
    "reached "
    "the borders on every side.",
    "Bread rises because yeast eats the sugar in the flour and gives off a gas, which is held in the dough by long strands of "
    "gluten.",
    "A library catalogue tells the reader two things: whether the book is there, and where it stands. Everything else is a help in "
    "finding out what to ask for.",
    "In the northern hemisphere the days grow longer from the end of December until June. At the pole the sun does not set for "
    "months.",
    "The committee met on Tuesday to discuss the repairs of the bridge. It was agreed that the work should begin in the spring and "
    "be "
    "paid for by both towns.",
    "Most birds that eat insects leave before the winter, because their food disappears. Those that eat seeds can stay.",
    "Hello! How are you today? I am fine, thank you. What can I do for you?",
    "He was born in a small village near the coast, studied law in the capital, and was elected to parliament at the age of "
    "thirty-four.",
    "To change the password, open the settings, choose the account, and type the old password once and the new one twice.",
    "Copper conducts heat and electricity better than iron, but it is softer and more expensive, so it is used where that matters.",
    "The play has three acts. In the second the brothers meet again without knowing each other, and it ends with a letter that is "
    "read "
    "too late.",
    "The bundled generators are small models with the LFM2 architecture. They were trained for one task: to answer a question from "
    "numbered sources. They understand English only. They know little by heart.",
    "Ctrl-C stops an answer and stays in the chat. What was written until then stays in the conversation.",
    "Dequantization is exact: the values are bit for bit those of llama.cpp for every type (tests/kernels/test_quant.c holds "
    "golden rows, quantized ones and random bytes).",
    "The option --json prints the answer, its citations, the sources and the times as one JSON document. The exit code is 0 when "
    "the question was answered, 1 when something failed, 2 when the usage was wrong and 130 when it was stopped by Ctrl-C.",
    "RuvLLM comes with three generators and one encoder. The generators are called tier s, tier m and tier l. The default is tier "
    "l, the largest. The setting model chooses a tier or a file.",
    "When the encoder has changed, the memory is refused. Name the old encoder with --encoder, or run ruvllm memory reembed --all "
    "to compute the vectors anew.",
    "A question goes through five stages: embed, retrieve, assemble, generate and cite. The encoder turns the question into a "
    "vector. The memory finds the passages that are near in meaning or share words with it. The best three passages are put into "
    "the prompt.",
    "RuvLLM is built from source on Debian 12. The command make run installs what is missing, builds the program and answers three "
    "questions from this handbook. Building takes about three minutes on two cores.",
    "Cited sources are marked with a star. The place of a cited source is the file and the line of the quoted sentence. The option "
    "--sources sets how many passages the model gets. Three passages are the default.",
    "Vectors are F32 in the database and, normalised, in memory from the first search by meaning on. Nothing else is needed to "
    "open a memory on another machine; ruvllm memory backup FILE makes one file of it while it is in use.",
    "The command ruvllm quantize makes a model smaller. The type Q4_K_M needs a little less than 5 bits per weight. The type Q8_0 "
    "needs 8.5 bits per weight and loses almost nothing. An interrupted run leaves nothing half-written.",
    "make build && cmake --build build --target bench_quant builds the tool; it takes any F32, F16 or BF16 GGUF file.",
    "The command /remember puts a file, a directory or a sentence into memory without leaving the chat.",
    "The setting user says whose memory it is. A passage of one user is never found by another user. Passages without a user are "
    "common to all.",
    "A question may refer to the one before it. The session keeps the beginning of the conversation in its key-value cache, so "
    "only the new part is computed.",
    "RuvLLM reads files of plain text, Markdown and HTML. The ending of a file's name decides how it is read. Binary files are "
    "skipped. Files larger than 32 MiB are skipped as well.",
    "The bundled models always take the likeliest token, so the same question gives the same answer. With a temperature above "
    "zero, the setting seed makes an answer repeatable.",
    "The terms of a forgotten text may stay in the word index's older segments, without the text, until they are merged; memory "
    "compact merges them at once.",
    "The script scripts/setup.sh installs the Debian packages that are missing. It uses apt-get and asks for nothing. On systems "
    "other than Debian it prints the names of the packages that are needed.",
    "While a bundled model quotes, it can only write sentences of the source. RuvLLM checks where every quoted sentence stands.",
    "RuvLLM chooses its kernels when it starts. It uses AVX-512, AVX2 or NEON when the processor and the operating system allow "
    "it. The variable RUVLLM_ISA chooses a lower instruction set.",
    "Keys and values are kept in pages of 64 tokens. The setting kv-type chooses their precision. The type q8_0 needs half the "
    "memory of f16.",
    "RuvLLM sends nothing over the network. Questions, answers and files stay on the machine. The log holds no prompts and no "
    "stored texts.",
    "The configuration file is ~/.config/ruvllm/config.ini. Each line holds a key, an equals sign and a value. Comments begin with "
    "a hash sign. The option --config names another file.",
    "The command ruvllm remember reads files into memory. It takes files, directories, or a dash for standard input. For example, "
    "ruvllm remember docs/ reads every file below the directory docs.",
    "The tiny LFM2 test model (random weights, 1.5 M of them), build/bench/bench_quant lfm2-tiny-BF16.gguf --ggml libggml-base.so "
    "--rows 128:",
    "Every setting has one name. It can be set by a flag, in the environment, or in the configuration file. A flag beats the "
    "environment, the environment beats the file, the file beats the preset, and the preset beats the default.",
    "A write that was acknowledged survives a power failure. Every write is one transaction. Several programs may use one memory "
    "at the same time.",
    "Lines that begin with a slash are commands. The command /help lists them. The command /sources shows the sources of the last "
    "answer with their text. The command /memory shows how much is remembered, and /memory with words behind it searches.",
    "The command make test builds everything and runs every test. It runs the tests a second time with AddressSanitizer and "
    "UndefinedBehaviorSanitizer.",
    "Directories are read recursively. Hidden files and symbolic links are left out. The option --verbose names every file that "
    "was skipped and says why.",
    "The command ruvllm config prints every setting, its value and where the value comes from. The option --changed shows only "
    "what differs from the default.",
    "The memory records which encoder made its vectors. It refuses another encoder, because vectors of two encoders cannot be "
    "compared. The command ruvllm memory reembed --all computes all vectors anew for another encoder.",
    "The command ruvllm bench measures how fast a model reads and writes. It prints the memory bandwidth of the machine beside the "
    "result.",
    "When a model file is not found, the message names the file. Set models-dir to the directory where the models lie.",
    "The command ruvllm memory backup copies the memory to one file while it is in use. The command ruvllm memory export writes "
    "everything as JSON lines.",
    "A preset sets defaults for a kind of machine. The preset edge uses tier m, two sources and a context of 1024 tokens. The "
    "preset server-cpu uses tier l and a context of 4096 tokens. The preset server-gpu is refused, because this build has no GPU "
    "backend.",
    "A smaller context needs less memory. The setting kv-type q8_0 halves the key-value cache. A smaller model needs less as well.",
    "A file that has not changed is not read again. RuvLLM compares the SHA-256 of its bytes. When a file has changed, only the "
    "passages that are new are embedded, and passages that are gone are removed. The option --again reads files even when they "
    "have not changed.",
    "Look at the sources first. When the right passage is not among them, ask with the words of the document or raise --sources. "
    "When the right passage is there and the answer is still wrong, use a larger model.",
    "The command ruvllm doctor checks the installation. It looks at the processor, the memory, the models, the store and the disk. "
    "It ends with exit code 1 when something will not work.",
    "The command ruvllm memory list shows the newest entries. The command ruvllm memory search finds entries. The command ruvllm "
    "memory stats counts them.",
    "The name of a setting in the environment begins with RUVLLM_ and is written in capitals. For example, the setting max-tokens "
    "is called RUVLLM_MAX_TOKENS.",
    "bench_memory DIR N BATCH, one thread, Xeon with AVX-512, 384 numbers a vector, CPU time where the machine was shared:",
    "The command ruvllm inspect says what a model file is. It lists the sizes by tensor type. When a file cannot be used, it says "
    "why.",
    "RuvLLM reads and writes the block formats of GGUF. src/tensor/blocks.h has their bytes; src/tensor/quant.h the two calls, "
    "ruv_quantize_rows and ruv_dequantize_row.",
    "The command ruvllm chat starts a conversation. The memory is searched for every message. Ctrl-D or /quit leaves the chat.",
    "The command make install copies the program, the library, the headers and the bundled models to /usr/local. Set PREFIX to "
    "install somewhere else.",
    "RuvLLM runs GGUF files of LFM2, Qwen2, Qwen2.5, Qwen3 and Llama models. Name the file with --model to use it. A model that "
    "was not trained for RuvLLM's prompt gets a system message that explains it.",
    "Every file is stored in one transaction. When reading is interrupted, the files that were finished stay in memory. The same "
    "command goes on where it stopped.",
    "The command ruvllm convert turns a Hugging Face directory into a GGUF file. It reads the weights from safetensors files, the "
    "tokenizer and the chat template.",
    "Quantized weights multiply activations that were quantized once for all matrices that read them: int8 codes in groups of 32 "
    "with one F32 scale each (llama.cpp's K types use one scale for 256). Products of codes are exact in int32.",
    "Passages are found in two ways: by meaning and by words. The search by meaning compares vectors by their cosine. The search "
    "by words uses BM25. Both lists are fused by their standardised scores. When both put the same passage first, a bundled model "
    "gets only that one.",
    "Models are files in the GGUF format, version 2 or 3. Models that are split into several files are opened by naming the first "
    "one.",
    "RuvLLM is a local language model runtime that remembers. RuvLLM is written in the language C. It is one program, called "
    "ruvllm, and one library, called libruvllm. RuvLLM is published under the Apache 2.0 licence.",
    "The weights of a model are mapped from the file and not copied. Two programs that use the same model share its weights.",
    "ruv_memory_write_back does this for a program that calls it; no command of ruvllm does yet.",
    "Model files are looked for in the directory that the setting models-dir names. Then RuvLLM looks into the directory models in "
    "its data directory, and beside the program. The command ruvllm doctor prints which files are used.",
    "The memory is stored in an SQLite database called memory.db. RuvLLM keeps its data in the directory ~/.local/share/ruvllm. "
    "The setting data-dir chooses another directory.",
    "The command /clear forgets the conversation but not the memory. The command /save writes the conversation to a Markdown file.",
    "The setting context says how many tokens the model sees at once. A prompt that is too long is refused, never cut silently. "
    "Sources that do not fit are left out and reported.",
    "BM25 over 100,000 paragraphs of Wikipedia takes 13 ms of CPU for a question of the Natural Questions (FTS5 looks up the "
    "length of every paragraph that has one of the words); it is the slower half of a hybrid search.",
    "RuvLLM runs on the processor of your own machine. It needs no graphics card and no network. The first command works offline, "
    "because small models come with the program.",
    "New directories are readable by their owner only. The history of the chat is kept in the file chat_history in the data "
    "directory, and only its owner can read it.",
    "A file is cut into passages. A passage has at most 160 tokens. A passage never crosses a heading. Every passage knows its "
    "file and its lines. The setting chunk-tokens changes how long a passage may be.",
    "When standard input is not a terminal, every line of it is one message. With --json, every answer is one line of JSON.",
    "The command ruvllm imatrix measures which weights matter most on a text. The command quantize reads that file and rounds the "
    "important weights more carefully.",
    "Every bundled model is compared with its SHA-256 when it is opened. A file that does not match is refused. Get the file again "
    "in that case.",
    "The command ruvllm memory verify checks the whole store. With --repair it makes anew what can be made anew.",
    "What include/ruvllm/memory.h promises, where it is kept, and what it costs. The handbook says how to use it (ruvllm memory "
    "--help).",
    "The command ruvllm ask answers one question from memory. Write the question in quotation marks behind it. A dash instead of "
    "the question reads it from standard input.",
    "The command ruvllm memory forget deletes entries. Forgetting deletes the text, its vector and its links, and the text is "
    "found no more. The freed space is overwritten. Words of a forgotten text leave the word index with ruvllm memory compact.",
    "Delete the directory ~/.local/share/ruvllm to remove all that was remembered. The program itself is one file, and the models "
    "are in a directory beside it.",
    "The trained model of tier L (43 M weights, the first 48 rows of every matrix), build/bench/bench_quant "
    "ruvllm-nano-l-BF16.gguf --ggml libggml-base.so --rows 48:",
    "The option --no-memory asks the model alone, without any source. The option --only-sources prints the passages and generates "
    "nothing.",
    NULL,
};

const char *const ruv_learn_base_suite[] = {
    "The island is about forty kilometres long and has two towns, one at each end. Fishing was the main trade until the middle of "
    "the "
    "last century, when the harbour became too shallow for larger boats. Today most people work in tourism, and the old warehouses "
    "have been turned into hotels and restaurants.",
    "Glass is made by melting sand together with soda and lime at more than 1,400 degrees. The soda makes the sand melt earlier, "
    "and "
    "the lime keeps the finished glass from dissolving in water. Small amounts of metal give it colour: iron makes it green, and "
    "cobalt makes it blue.",
    "After the war the university was rebuilt on the other side of the river. The new buildings were plain and cheap, and many "
    "teachers complained that the rooms were cold. The library, however, was larger than before, and it soon had more readers than "
    "any other in the region.",
    "A computer stores numbers as rows of bits. Each bit is either zero or one, and eight of them make a byte. To store a text, "
    "every "
    "letter is given a number, and the numbers are written one behind the other. Pictures and sounds are stored in the same way.",
    "The composer wrote his first symphony when he was nineteen, and it was played only once during his life. He earned his living "
    "as "
    "a teacher and as an organist. Most of his songs were published after his death by his sister, who had kept the manuscripts in "
    "a "
    "wooden box.",
    "Plants take in carbon dioxide through small openings in their leaves. With the energy of light they turn it into sugar, which "
    "they use to grow or keep for later. At night they breathe as animals do and give some of the carbon dioxide back.",
    "The team lost the first game of the season but won the next seven. In the final they met the champions of the year before and "
    "led by one goal until the last minute. The match was decided by penalties, which began after a break of five minutes.",
    "The law was changed in 1921 so that women could vote and be elected. Two years later the first woman became a minister. She "
    "was "
    "responsible for schools and hospitals, and she introduced a free meal for every child in the primary schools of the country.",
    "Volcanoes are found where the plates of the crust move apart or where one is pushed below another. Lava that is thin flows "
    "far "
    "and builds wide, flat mountains. Lava that is thick blocks its own way out, and the pressure grows until the mountain "
    "explodes.",
    "The museum was founded by a merchant who had collected coins, maps and musical instruments on his travels. He left his house "
    "to "
    "the city on the condition that entry would always be free. Since then the collection has grown to more than sixty thousand "
    "objects, of which only a tenth can be shown at a time.",
    NULL,
};
