/* base_text.c - the anchors and the base suite. No sentence of one stands in the other. */
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
