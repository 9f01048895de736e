"""Rows that no public set gives in our format: handbook-style passages with questions, short chat, tool calls, judging, summaries, follow-ups.

Handbook passages are put together from hand-written facts with drawn values, so the answer changes from row to row and cannot be learnt by heart.
"""
import json, random
import rows as R
from rows import IDK, squash

V = dict(
    app=["Harbor", "Lumen", "Quill", "Tidepool", "Anvil", "Marrow", "Pebble", "Kestrel", "Orchard", "Vesper", "Nimbus", "Basalt", "Fennel", "Copperline", "Drift", "Inkwell", "Sable", "Juniper", "Mosaic", "Trellis"],
    cmd=["start", "sync", "init", "check", "serve", "import", "export", "repair", "status", "watch", "prune", "restore", "verify", "rotate"],
    file=["config.toml", "settings.yaml", "app.conf", "server.ini", "profile.json", "hosts.cfg", "keys.pem", "notes.db", "cache.bin", "audit.log"],
    dir=["/var/lib/{a}", "/etc/{a}", "~/.{a}", "/opt/{a}/data", "/srv/{a}", "~/.config/{a}", "/var/log/{a}", "/tmp/{a}"],
    port=["8080", "9000", "5432", "7070", "443", "8443", "3000", "6379", "11434", "4317", "2049", "1883"],
    n=["2", "3", "4", "5", "6", "7", "8", "10", "12", "14", "15", "16", "20", "24", "25", "30", "32", "45", "48", "50", "60", "64", "90", "100", "120", "128", "200", "250", "256", "365", "500", "512", "1000"],
    time=["02:00", "03:30", "midnight", "06:15", "noon", "18:00", "21:45", "23:00", "04:00", "1 a.m.", "5 p.m.", "half past seven"],
    day=["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    month=["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"],
    person=["Maria Lopez", "Ken Adams", "Priya Nair", "Tom Becker", "Aisha Khan", "Lena Fischer", "David Okoro", "Yuki Tanaka", "Ruth Cohen", "Omar Haddad", "Ingrid Berg", "Paulo Silva", "Grace Kim", "Ivan Petrov"],
    place=["Lisbon", "Oslo", "Nairobi", "Toronto", "Leeds", "Osaka", "Denver", "Ghent", "Porto", "Austin", "Zurich", "Adelaide", "Cork", "Tallinn"],
    room=["room 204", "the small meeting room", "the library", "the basement", "the second floor", "the loading dock", "building C", "the east wing", "the server room", "the front desk"],
    fmt=["JSON", "CSV", "Markdown", "plain text", "Parquet", "XML", "PDF", "HTML", "SQLite", "YAML"],
    algo=["AES-256", "ChaCha20", "SHA-256", "Ed25519", "BLAKE3", "RSA-4096", "TLS 1.3", "Argon2"],
    unit=["MB", "GB", "kB", "TB"], dom=[str(i) for i in range(1, 29)], tu=["minutes", "hours", "days", "weeks", "seconds"],
    color=["red", "green", "amber", "blue", "white", "yellow", "orange", "purple"],
    env=["{A}_HOME", "{A}_TOKEN", "{A}_PORT", "{A}_LOG", "{A}_CACHE", "{A}_DEBUG", "{A}_THREADS"],
    flag=["--force", "--dry-run", "--verbose", "--offline", "--all", "--quiet", "--json", "--yes", "--watch", "--reset", "--insecure", "--no-cache"],
    item=["bread", "coffee", "printer paper", "batteries", "olive oil", "light bulbs", "toner", "first-aid kits", "gloves", "milk", "cat food", "screws"],
    animal=["cat", "dog", "parrot", "rabbit", "tortoise", "goldfish"], pet=["Milo", "Luna", "Pepper", "Biscuit", "Olive", "Ziggy", "Nora", "Teddy"],
    lang=["C", "Rust", "Go", "Python", "Java", "TypeScript", "Zig", "Kotlin", "Lua"], lic=["MIT", "Apache 2.0", "GPL-3.0", "BSD", "MPL 2.0"],
    money=["$5", "$12", "$20", "$49", "$99", "$150", "€8", "€30", "€75", "£10", "£25"],
)
# theme -> [(sentence, [questions], answer)]
FACTS = {
    "Backups": [
        ("The nightly backup starts at {time}.", ["When does the nightly backup start?", "What time do backups begin?", "At which hour is the data saved every night?"], "{time}"),
        ("Each backup is kept for {n} {tu}.", ["How long is a backup kept?", "For how long are old copies stored?", "When are backups thrown away?"], "{n} {tu}"),
        ("Backups are written to {dir}.", ["Where are backups written?", "Which directory holds the saved copies?", "Where can I find the backup files?"], "{dir}"),
        ("A restore needs the passphrase that was printed at setup.", ["What does a restore need?", "What do I have to enter to get my data back?"], "the passphrase that was printed at setup"),
        ("To restore a single file, run `{app} restore --file NAME`.", ["How do I restore one file?", "Which command brings back a single file?"], "`{app} restore --file NAME`"),
        ("{person} is responsible for checking the backups every {day}.", ["Who checks the backups?", "Which person looks after the backups?"], "{person}"),
    ],
    "Installation": [
        ("{app} needs at least {n} {unit} of free disk space.", ["How much disk space does {app} need?", "What is the minimum free space?", "How big must the disk be?"], "{n} {unit}"),
        ("To install it, unpack the archive and run `{app} {cmd}`.", ["How do I install {app}?", "Which command finishes the installation?", "What must be run after unpacking the archive?"], "run `{app} {cmd}`"),
        ("The program is written in {lang}.", ["Which programming language is {app} written in?", "What language was used to write the program?"], "{lang}"),
        ("It is released under the {lic} licence.", ["Under which licence is it released?", "What licence does {app} have?", "May I see the terms: which licence is used?"], "{lic}"),
        ("The configuration file is called {file}.", ["What is the configuration file called?", "Which file holds the settings?", "Where are settings stored?"], "{file}"),
        ("Upgrades keep the old database as a copy for {n} {tu}.", ["How long does an upgrade keep the old database?", "For what time is the previous database still there?"], "{n} {tu}"),
        ("Windows is not supported yet.", ["Which system is not supported?", "What platform can't run {app} yet?"], "Windows"),
    ],
    "Server": [
        ("By default the server listens on port {port}.", ["Which port does the server listen on?", "What is the default port?", "On what port can I reach the server?"], "{port}"),
        ("Set the environment variable {env} to change this.", ["Which environment variable changes it?", "What variable must be set to change the port?"], "{env}"),
        ("At most {n} clients can be connected at the same time.", ["How many clients can connect at once?", "What is the limit on simultaneous connections?", "How many users can be online together?"], "{n}"),
        ("Idle connections are closed after {n} {tu}.", ["When are idle connections closed?", "How long can a connection do nothing before it is dropped?"], "after {n} {tu}"),
        ("Logs are written to {dir} and rotated every {day}.", ["Where are the logs written?", "In which directory do I find the log files?"], "{dir}"),
        ("Requests larger than {n} {unit} are refused with an error.", ["What size of request is refused?", "How large may a request be?", "What is the maximum request size?"], "{n} {unit}"),
        ("To stop the server, press Ctrl-C or run `{app} stop`.", ["How do I stop the server?", "How can the server be shut down?"], "press Ctrl-C or run `{app} stop`"),
        ("The health check answers at /healthz.", ["Where does the health check answer?", "Which path reports health?"], "/healthz"),
    ],
    "Security": [
        ("All stored data is encrypted with {algo}.", ["How is stored data encrypted?", "Which cipher protects the data?", "What encryption is used?"], "{algo}"),
        ("A password must have at least {n} characters.", ["How long must a password be?", "What is the minimum password length?"], "at least {n} characters"),
        ("After {n} failed attempts the account is locked.", ["After how many failed attempts is an account locked?", "How often can I mistype my password?", "When does an account get blocked?"], "{n}"),
        ("Only {person} can unlock an account.", ["Who can unlock an account?", "Whom do I ask when my account is locked?"], "{person}"),
        ("Tokens expire after {n} {tu}.", ["When do tokens expire?", "How long is a token valid?", "What is the lifetime of a token?"], "after {n} {tu}"),
        ("The private key lies in {dir}/{file}.", ["Where is the private key?", "Which file holds the private key?"], "{dir}/{file}"),
        ("Reports of security problems go to security@{a}.example.", ["Where do I report a security problem?", "To which address should vulnerabilities be sent?"], "security@{a}.example"),
    ],
    "Command line": [
        ("The option {flag} shows what would be done without doing it.", ["Which option shows what would be done?", "How can I preview the changes?"], "{flag}"),
        ("Use `{app} {cmd}` to list all projects.", ["How do I list all projects?", "Which command shows every project?"], "`{app} {cmd}`"),
        ("Results are printed as {fmt} unless another format is asked for.", ["In which format are results printed?", "What is the default output format?"], "{fmt}"),
        ("With `-j {n}` the work is split over {n} threads.", ["How many threads does `-j {n}` use?", "Over how many threads is the work split?"], "{n}"),
        ("The command exits with status {n} when a file is missing.", ["What is the exit status when a file is missing?", "Which status tells that a file was not found?"], "{n}"),
        ("History is saved in {dir}/history.", ["Where is the history saved?", "Which file stores earlier commands?"], "{dir}/history"),
    ],
    "Memory and search": [
        ("Notes are split into passages of at most {n} words.", ["How are notes split?", "How long is a passage at most?", "What is the largest passage size in words?"], "{n} words"),
        ("A search returns the {n} best passages.", ["How many passages does a search return?", "How many results do I get?"], "{n}"),
        ("Two passages count as duplicates when their similarity is above 0.{n}.", ["When do two passages count as duplicates?", "What similarity makes passages duplicates?"], "when their similarity is above 0.{n}"),
        ("Deleted notes can be brought back for {n} {tu}.", ["How long can deleted notes be brought back?", "Until when can I undo a deletion?"], "{n} {tu}"),
        ("The index is rebuilt every {day} at {time}.", ["When is the index rebuilt?", "On which day and time does reindexing take place?"], "every {day} at {time}"),
        ("To add a folder, run `{app} {cmd} PATH`.", ["How do I add a folder?", "What do I run to add a directory?"], "run `{app} {cmd} PATH`"),
        ("Files in {fmt} format are read directly.", ["Which file format is read directly?", "What format can be imported without conversion?"], "{fmt}"),
    ],
    "Models": [
        ("The small model answers in about {n} milliseconds.", ["How fast is the small model?", "How long does the small model take to answer?"], "about {n} milliseconds"),
        ("The large model needs {n} {unit} of memory.", ["How much memory does the large model need?", "How much RAM must be free for the big model?"], "{n} {unit}"),
        ("Models are downloaded to {dir}.", ["Where are models downloaded to?", "Which folder contains the model files?"], "{dir}"),
        ("Use {flag} to run without a network.", ["How do I run without a network?", "Which flag is for working offline?"], "{flag}"),
        ("The context window holds {n} thousand tokens.", ["How many tokens fit in the context window?", "How large is the context?"], "{n} thousand tokens"),
        ("When no model file is found, the program stops with an error.", ["What happens when no model file is found?", "How does the program react to a missing model?"], "the program stops with an error"),
    ],
    "Team notes": [
        ("The weekly meeting is on {day} at {time} in {room}.", ["When is the weekly meeting?", "On which day does the team meet?", "At what time do we meet every week?"], "on {day} at {time}"),
        ("{person} leads the project.", ["Who leads the project?", "Who is in charge of the project?"], "{person}"),
        ("The release is planned for {dom} {month}.", ["When is the release planned?", "What date is the release set for?"], "{dom} {month}"),
        ("The office in {place} is closed in {month}.", ["Which office is closed in {month}?", "When is the {place} office closed?"], None),
        ("The budget for travel is {money} per person.", ["What is the travel budget per person?", "How much money may each person spend on travel?"], "{money}"),
        ("The spare key is kept in {room}.", ["Where is the spare key?", "Where can I find the extra key?"], "in {room}"),
        ("{person} moved to the {place} office in {month}.", ["Where did {person} move?", "To which office did {person} go?"], "the {place} office"),
    ],
    "House notes": [
        ("The bins are collected every {day} morning.", ["When are the bins collected?", "On which day does the rubbish get picked up?"], "every {day} morning"),
        ("We need to buy {item} and {item2}.", ["What do we need to buy?", "What is on the shopping list?"], "{item} and {item2}"),
        ("The {animal} is called {pet}.", ["What is the {animal} called?", "What is the name of our {animal}?"], "{pet}"),
        ("{pet} gets medicine at {time}.", ["When does {pet} get medicine?", "At what time should I give {pet} the medicine?"], "at {time}"),
        ("The Wi-Fi password is on a note in the kitchen drawer.", ["Where is the Wi-Fi password?", "How do I find the password for the wireless network?"], "on a note in the kitchen drawer"),
        ("The dentist appointment is on {dom} {month} at {time}.", ["When is the dentist appointment?", "What date do I have to see the dentist?"], "on {dom} {month} at {time}"),
        ("The heating was serviced by {person} in {month}.", ["Who serviced the heating?", "When was the heating serviced?"], None),
        ("Rent is {money} higher since {month}.", ["How much higher is the rent?", "By how much did the rent go up?"], "{money}"),
    ],
    "Device": [
        ("A {color} light means that the battery is low.", ["What does a {color} light mean?", "What is the meaning of the {color} lamp?"], "that the battery is low"),
        ("The battery lasts for {n} {tu}.", ["How long does the battery last?", "What is the battery life?"], "{n} {tu}"),
        ("Hold the button for {n} seconds to reset the device.", ["How do I reset the device?", "How can the unit be set back?"], "Hold the button for {n} seconds"),
        ("The warranty covers {n} months.", ["How long is the warranty?", "For how many months is the device covered?"], "{n} months"),
        ("Spare parts can be ordered from {place}.", ["Where can spare parts be ordered?", "From which city are spare parts sent?"], "{place}"),
        ("The filter must be cleaned every {n} {tu}.", ["How often must the filter be cleaned?", "When should I clean the filter?"], "every {n} {tu}"),
        ("It weighs {n} kilograms and runs on {n2} volts.", ["How heavy is it?", "What does the device weigh?"], "{n} kilograms"),
    ],
    "Service and orders": [
        ("Orders above {money} are sent free of charge.", ["From what amount is delivery free?", "When do I not pay for shipping?"], "above {money}"),
        ("Goods can be sent back within {n} days.", ["Within how many days can goods be sent back?", "How long do I have to return something?"], "{n} days"),
        ("Delivery takes {n} working days.", ["How long does delivery take?", "When will my parcel arrive?"], "{n} working days"),
        ("The support desk is open from {time} to {time2}.", ["When is the support desk open?", "At what hours can I call support?"], "from {time} to {time2}"),
        ("Invoices are sent by e-mail on the first {day} of the month.", ["When are invoices sent?", "On which day do bills arrive?"], "on the first {day} of the month"),
        ("The plan costs {money} a month.", ["What does the plan cost?", "How much do I pay each month?"], "{money} a month"),
        ("Gift cards expire after {n} months.", ["When do gift cards expire?", "How long is a gift card valid?"], "after {n} months"),
    ],
}


def fill(rng, extra=None):
    d = {k: rng.choice(v) for k, v in V.items()}
    for k in ("n", "time", "item", "person", "place"):
        d[k + "2"] = rng.choice([x for x in V[k] if x != d[k]])
    a = d["app"].lower()
    d["a"], d["A"] = a, d["app"].upper()
    d["dir"] = d["dir"].format(a=a); d["env"] = d["env"].format(A=d["A"])
    if extra:
        d.update(extra)
    return d


def handbook(rng, n_facts=None, theme=None, app=None):
    """-> title, text, [(question variants, sentence, answer)], [questions that it does not answer]"""
    theme = theme or rng.choice(list(FACTS))
    fs = FACTS[theme][:]
    rng.shuffle(fs)
    n = n_facts or rng.randint(2, min(5, len(fs)))
    use, rest = fs[:n], fs[n:]
    app = app or rng.choice(V["app"])
    sents, qa = [], []
    for s, qs, ans in use:
        d = fill(rng, dict(app=app))
        d["a"], d["A"] = app.lower(), app.upper()
        d["dir"] = rng.choice(V["dir"]).format(a=app.lower()); d["env"] = rng.choice(V["env"]).format(A=app.upper())
        st = s.format(**d)
        sents.append(st)
        if ans is not None:
            qa.append(([q.format(**d) for q in qs], st, ans.format(**d)))
    d = fill(rng, dict(app=app))
    un = [rng.choice(qs).format(**d) for s, qs, ans in rest if ans]
    title = theme if rng.random() < 0.6 else f"{app}: {theme.lower()}" if rng.random() < 0.5 else f"{app} handbook"
    return title, " ".join(sents), qa, un


def handbook_row(b, rng):
    app = rng.choice(V["app"]) if rng.random() < 0.7 else None
    title, text, qa, un = handbook(rng, app=app)
    k = rng.choice([1, 2, 3, 3, 3, 4, 5])
    themes = [t for t in FACTS]
    ps = [(title, text)]
    while len(ps) < k:
        t2, x2, _, _ = handbook(rng, theme=rng.choice(themes), app=app)
        if not any(s in x2 for _, s, _ in qa[:1]):
            ps.append((t2, x2))
    order = list(range(k)); rng.shuffle(order)
    show = rng.random() < 0.8
    if un and rng.random() < 0.25:
        q = rng.choice(un)
        key = R.content(q)
        if any(len(key & R.content(p)) >= max(2, len(key) - 1) for _, p in ps):
            return False
        return b.add([("user", R.sources_text([(ps[i][0] if show else None, ps[i][1]) for i in order], R.noisy_question(rng, q)))], IDK, "docs.u", [(0, 1)])
    if not qa:
        return False
    qs, sent, ans = rng.choice(qa)
    if ans not in sent:
        return False
    # another source that answers the same question makes the row ambiguous
    if any(sent.split(" ")[:3] == s.split(" ")[:3] for i, (_, p) in enumerate(ps) if i for s in [p[a:e] for a, e in R.sentences(p)]):
        return False
    t, dec = R.answer_text(order.index(0) + 1, sent, ans)
    return b.add([("user", R.sources_text([(ps[i][0] if show else None, ps[i][1]) for i in order], R.noisy_question(rng, rng.choice(qs))))], t, "docs.a", dec)


CHAT = [
    (["Hi", "Hello", "Hey", "hi there", "Hello!", "good morning", "Good evening", "hey there", "Hiya"], ["Hello! What would you like to know?", "Hi! How can I help?", "Hello! Ask me something about your notes or documents."]),
    (["How are you?", "how are you doing", "How's it going?", "are you ok"], ["I'm running fine, thank you. What can I do for you?", "All well here. What would you like to know?"]),
    (["Thanks", "Thank you!", "thanks a lot", "Great, thank you", "cheers", "Thank you for the help"], ["You're welcome!", "Glad to help.", "You're welcome. Anything else?"]),
    (["Bye", "Goodbye", "see you", "Good night", "That's all for today"], ["Goodbye!", "See you next time.", "Goodbye, and take care."]),
    (["Who are you?", "What are you?", "what is your name", "Tell me about yourself", "introduce yourself"], ["I'm the small language model that comes with RuvLLM. I answer questions from your documents and notes.", "I'm RuvLLM's bundled model. I run on this machine and answer from your sources."]),
    (["What can you do?", "How can you help me?", "what are you good at", "help", "What do you do?"], ["I answer questions from the passages that RuvLLM finds, quote the sentence that supports the answer, and say when I don't know. I can also summarize a passage.", "I can answer from your documents with a quote, and summarize short passages. I'm small, so I don't know much by heart."]),
    (["Are you a human?", "are you real", "Am I talking to a person?"], ["No, I'm a small language model.", "No. I'm a program that runs on this machine."]),
    (["Are you online?", "Do you send my data anywhere?", "Is my data safe with you?", "do you need the internet"], ["I run on this machine and need no network.", "I work locally. Your text stays on this machine unless you configure a remote model."]),
    (["What time is it?", "what day is today", "What's the date?", "how is the weather", "What's the weather like?"], ["I can't see that from here.", "I don't know; I only see the text that I am given."]),
    (["Tell me a joke", "say something funny", "Do you know a joke?"], ["Why did the programmer go outside? To get some fresh cache.", "I would tell you a joke about memory, but I forgot it."]),
    (["ok", "okay", "I see", "alright", "Got it", "hmm"], ["Good. What would you like to do next?", "All right. Ask me anything else."]),
    (["You are wrong", "that's not right", "No, that is false", "your answer is wrong"], ["I'm sorry. Could you say what is wrong, or give me the source?", "Sorry about that. Show me the right passage and I'll try again."]),
    (["Sorry", "my mistake", "oops"], ["No problem.", "That's all right."]),
    (["Can you write code?", "write me a program", "Can you do math?", "solve this equation"], ["I'm too small to do that well. A larger model can be set in the configuration.", "Not reliably. I'm a very small model; use a larger one for that."]),
    (["Do you remember me?", "what did I tell you yesterday", "Can you remember things?"], ["RuvLLM keeps a memory of what you tell it to remember; I read the passages it finds.", "I only see what RuvLLM's memory finds for your question."]),
    (["I'm tired", "I had a bad day", "I feel sad", "I'm bored"], ["I'm sorry to hear that. I hope it gets better soon.", "That sounds hard. Is there something I can look up for you?"]),
    (["You are great", "good job", "well done", "Nice answer"], ["Thank you!", "Thanks, that's kind of you."]),
    (["How do I use you?", "how does this work", "What should I ask?"], ["Add some documents or notes, then ask a question about them in plain words.", "Give RuvLLM some text to remember, then ask about it."]),
    (["Where do you get your answers?", "what are your sources", "How do you know that?"], ["From the passages that RuvLLM finds in its memory. I quote the sentence that I used.", "I quote a sentence from the numbered sources, so you can check it."]),
    (["Can you speak German?", "do you know other languages", "Parlez-vous français?"], ["I was trained on English only.", "Only English, I'm afraid."]),
]


def chat_row(b, rng, leads):
    r = rng.random()
    if r < 0.35 or not leads:
        us, an = rng.choice(CHAT)
        msgs = []
        if rng.random() < 0.3:
            u0, a0 = rng.choice(CHAT)
            msgs += [("user", rng.choice(u0)), ("assistant", rng.choice(a0))]
        u = rng.choice(us)
        if rng.random() < 0.3:
            u = u.lower()
        if rng.random() < 0.2:
            u = u.rstrip("?!.") + rng.choice(["", "!", "?", "."])
        return b.add(msgs + [("user", u)], rng.choice(an), "chat")
    title, first, person = rng.choice(leads)
    q = rng.choice(["Who was {t}?", "Who is {t}?", "Tell me about {t}.", "What do you know about {t}?"] if person else
                   ["What is {t}?", "Tell me about {t}.", "What does {t} mean?", "Explain {t}.", "Can you describe {t}?"]).format(t=title)
    return b.add([("user", q)], first, "lead")


TOOLS = [
    ("get_weather", "Current weather of a city", dict(city="string"), ["What's the weather in {place}?", "How is the weather in {place} today?", "Is it raining in {place}?", "weather {place}"], 'city="{place}"'),
    ("set_timer", "Start a timer", dict(minutes="integer"), ["Set a timer for {n} minutes.", "Wake me in {n} minutes", "Start a {n} minute timer"], "minutes={n}"),
    ("search_notes", "Search the user's notes", dict(query="string"), ["Find my notes about {item}.", "Search my notes for {item}", "What did I write about {item}?"], 'query="{item}"'),
    ("add_to_list", "Add an item to a list", dict(list="string", item="string"), ["Put {item} on the shopping list.", "Add {item} to my shopping list"], 'list="shopping", item="{item}"'),
    ("send_message", "Send a message to a person", dict(to="string", text="string"), ["Tell {person} that I will be late.", "Send {person} a message: I will be late."], 'to="{person}", text="I will be late."'),
    ("create_event", "Create a calendar event", dict(day="string", time="string", title="string"), ["Book a meeting with {person} on {day} at {time}.", "Put a meeting with {person} into my calendar, {day} {time}"], 'day="{day}", time="{time}", title="Meeting with {person}"'),
    ("play_music", "Play music of an artist", dict(artist="string"), ["Play something by {person}.", "I want to hear {person}"], 'artist="{person}"'),
    ("convert_currency", "Convert an amount", dict(amount="number", source="string", target="string"), ["How much is {n} dollars in euros?", "Convert {n} USD to EUR"], 'amount={n}, source="USD", target="EUR"'),
    ("open_file", "Open a file", dict(path="string"), ["Open {dir}/{file}.", "Show me the file {dir}/{file}"], 'path="{dir}/{file}"'),
    ("set_light", "Set the colour of a lamp", dict(room="string", color="string"), ["Make the light in {room} {color}.", "Set the lamp in {room} to {color}"], 'room="{room}", color="{color}"'),
    ("restart_service", "Restart a service", dict(name="string", force="boolean"), ["Restart {app}.", "Please restart the {app} service"], 'name="{app}", force=False'),
    ("get_train", "Next train between two cities", dict(origin="string", destination="string"), ["When is the next train from {place} to {place2}?", "Find a train from {place} to {place2}"], 'origin="{place}", destination="{place2}"'),
    ("remember", "Store a fact in memory", dict(text="string"), ["Remember that the {animal} is called {pet}.", "Please remember: the {animal} is called {pet}."], 'text="the {animal} is called {pet}"'),
    ("run_command", "Run a command", dict(command="string"), ["Run {app} {cmd}.", "Execute `{app} {cmd}`"], 'command="{app} {cmd}"'),
    ("calculate", "Evaluate an expression", dict(expression="string"), ["What is {n} times {n2}?", "Calculate {n} * {n2}"], 'expression="{n} * {n2}"'),
]


def tool_row(b, rng):
    k = rng.randint(1, 4)
    ts = rng.sample(TOOLS, k)
    name, desc, params, us, args = ts[0]
    d = fill(rng)
    if rng.random() < 0.3:
        pre = rng.choice(["get_", "do_", "my_", "user_", "api_", "fast_"])
        name2 = pre + name
    else:
        name2 = name
    rng_order = ts[:]
    rng.shuffle(rng_order)
    js = []
    for t in rng_order:
        props = {p: {"type": ty} for p, ty in t[2].items()}
        js.append(json.dumps(dict(name=name2 if t is ts[0] else t[0], description=t[1], parameters=dict(type="object", properties=props, required=list(t[2])))))
    call = f"<|tool_call_start|>[{name2}({args.format(**d)})]<|tool_call_end|>"
    return b.add([("system", "List of tools: [" + ", ".join(js) + "]"), ("user", rng.choice(us).format(**d))], call, "tool")


def judge_row(b, rng, ex, same, pool, gold, siblings=()):
    """gold: (start, end, short); siblings: other answerable questions on the passage. Half the wrong answers are right answers to a sibling: they stand in the
    passage and have the form of an answer, so that only the question tells them from the right one."""
    a, e, short = gold
    ctx, title = ex["context"], ex["title"]
    sent = squash(ctx[a:e]); short = squash(short)
    mine = [R.norm_answer(t) for t, _ in ex["answers"]] + [R.norm_answer(short)]
    clash = lambda t: not R.norm_answer(t) or any(R.norm_answer(t) in m or m in R.norm_answer(t) for m in mine)
    sents = [squash(ctx[x:y]) for x, y in R.sentences(ctx)]
    others = [m for m in R._ent.findall(ctx) if not clash(m)]
    kinds = [m for m in others if m[0].isdigit() == short[0].isdigit()] or others
    taken = [squash(t) for s in siblings for t, _ in s["answers"][:1] if not clash(t)]
    r, form, k = rng.random(), rng.random(), rng.choice([1, 1, 1, 2, 3])
    if r < 0.42:
        score, ans, qs = 5, short, sent
    elif r < 0.72 and taken:
        score, ans = 1, rng.choice(taken); qs = next((s for s in sents if ans in s), sent)
    elif r < 0.84 and kinds:
        score, ans = 1, rng.choice(kinds); qs = next((s for s in sents if ans in s), sent)
    elif r < 0.90 and len(short.split()) >= 3:
        w = short.split()
        score, ans, qs = 3, " ".join(w[:len(w) // 2] if rng.random() < 0.5 else w[len(w) // 2:]), sent
    elif r < 0.94:
        score, ans, qs, form = 4, sent, sent, 0.0
    elif len(pool) > 10:
        t, p = rng.choice(pool)
        es = R._ent.findall(p)
        if not es:
            return False
        ans = rng.choice(es); score, qs = 1, squash(p[:120].rsplit(". ")[0])
        if clash(ans) or R.norm_answer(ans) in R.norm_answer(ctx):
            return False
    else:
        return False
    text = ans
    ps = [(title or None, squash(ctx))]
    while len(ps) < k:
        t, p = rng.choice(pool)
        if p != ctx:
            ps.append((t, squash(p)[:900]))
    order = list(range(k)); rng.shuffle(order)
    if form >= 0.7:
        text = f"[{order.index(0) + 1}] {qs}\nAnswer: {ans}"
    user = R.sources_text([ps[i] for i in order], squash(ex["question"])) + f"\nAnswer: {text}\n\nRate the answer from 1 to 5."
    return b.add([("user", user)], str(score), "judge", [(0, 2)]), score, user


PRON = {"who": ["he", "she"], "what": ["it"]}


def follow_row(b, rng, exs, same, pool, golds):
    """exs: 2-3 answerable questions on one passage; earlier turns stand without sources"""
    title, ctx = exs[0]["title"], exs[0]["context"]
    msgs = []
    for ex, (a, e, short) in list(zip(exs, golds))[:-1]:
        t, _ = R.answer_text(rng.randint(1, 3), squash(ctx[a:e]), squash(short))
        msgs += [("user", squash(ex["question"])), ("assistant", t)]
    ex, (a, e, short) = exs[-1], golds[-1]
    q = squash(ex["question"])
    if title and title in q and rng.random() < 0.8:
        q = q.replace(title, rng.choice(["it", "he", "she", "they"]), 1)
    if rng.random() < 0.4:
        q = rng.choice(["And ", "And ", "So ", "Then "]) + q[0].lower() + q[1:]
    ps = [(title or None, squash(ctx))]
    for _ in range(rng.choice([0, 1, 2, 2])):
        t, p = rng.choice(pool)
        if p != ctx and R.norm_answer(short) not in R.norm_answer(p):
            ps.append((t, squash(p)[:800]))
    order = list(range(len(ps))); rng.shuffle(order)
    t, dec = R.answer_text(order.index(0) + 1, squash(ctx[a:e]), squash(short))
    return b.add(msgs + [("user", R.sources_text([ps[i] for i in order], q))], t, "follow", dec)


def summary_row(b, rng, title, pars):
    """the lead paragraph: its first sentence, and a second one when the passage is long"""
    p = squash(pars[0])
    if len(p) < 300 and len(pars) > 1:
        p = squash(p + " " + pars[1])
    sp = R.sentences(p)
    if len(sp) < 3 or not 250 < len(p) < 1800:
        return False
    ss = [p[a:e] for a, e in sp]
    first = ss[0]
    if not 40 < len(first) < 350:
        return False
    rest = ss[1:]
    doc = {}
    for s in ss:
        for w in R.content(s):
            doc[w] = doc.get(w, 0) + 1
    best = max(rest, key=lambda s: sum(doc[w] > 1 for w in R.content(s)) / (4 + len(R.words(s))))
    out = first if rng.random() < 0.5 or len(best) > 260 else first + " " + best
    if rng.random() < 0.3:                       # the key sentence does not always stand first
        ss2 = rest[:1] + [first] + rest[1:] if rng.random() < 0.3 else ss
        p = " ".join(ss2)
    return b.add([("user", "Summarize:\n" + p)], out, "sum")
