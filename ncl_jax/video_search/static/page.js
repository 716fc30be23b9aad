"use strict";
// Whatever comes from file names or captions goes in as text, never as HTML.

const $ = (id) => document.getElementById(id);
const PAGE = 12, MOST = 100; // clips shown at first and with every "More clips"; at all
let latest = 0; // answers to older searches are dropped
let current = null; // the request whose clips are shown
let largest = 0; // bytes of a picture or clip that the server takes; 0: none
let playing = null; // the player, its card's screen and the picture it stands for

async function fetched(path, options) {
  const answer = await fetch(path, options).catch(() => null);
  if (!answer) throw new Error("The server does not answer; is it still running?");
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({ error: "The server failed; see its output." }));
  throw new Error(body.error);
}

async function ask(path, parameters, options) {
  return (await fetched(`${path}?${new URLSearchParams(parameters)}`, options)).json();
}

function say(text, wrong = false) {
  $("said").textContent = text || "\u00a0";
  $("said").classList.toggle("wrong", wrong);
}

const chosenScores = () => document.querySelector("input[name=scores]:checked").value;
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

async function search() {
  const query = $("query").value.trim();
  if (query) return show(asked(query), PAGE, 0);
  if ($("query").value) return say("Type a few words that describe a clip.", true);
  await show(SOME, PAGE, 0);
}

// What can be asked for: where the clips come from, and the sentence about them.
const asked = (query) => ({
  path: "/api/search", parameters: { q: query },
  about: (count, scores) => `${plural(count, "clip")}, best first, by ${scores} scores in logits.`,
});
const similar = (hit) => ({
  path: "/api/similar", parameters: { item: hit.item },
  about: (count, scores) => `${plural(count, "clip")} like ${hit.file} ${hit.clock}, by ${scores} scores.`,
});
const like = (file) => ({
  path: "/api/example", parameters: {},
  options: { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file },
  about: (count, scores) => `${plural(count, "clip")} like ${file.name}, by ${scores} scores.`,
});
const SOME = {
  path: "/api/some", parameters: {}, about: () => "Some of the clips. Describe what happens in the one you look for.",
};

// The best `count` clips of a request, of which `shown` are on the page already.
async function show(request, count, shown) {
  const mine = ++latest;
  current = request;
  say("Searching…");
  try {
    const scores = chosenScores();
    const given = { ...request.parameters, scores, k: count };
    const { hits } = await ask(request.path, given, request.options);
    if (mine !== latest) return;
    if (!shown) {
      stop();
      $("hits").replaceChildren();
    }
    $("hits").append(...hits.slice(shown).map(card));
    const next = Math.min(hits.length + PAGE, MOST);
    $("more").hidden = hits.length < count || hits.length === MOST || request === SOME;
    $("more").onclick = () => show(request, next, hits.length);
    say(request.about(hits.length, scores));
    const { q } = request.parameters;
    if (q) history.replaceState(null, "", `?${new URLSearchParams({ q, scores })}`);
  } catch (error) {
    if (mine === latest) say(error.message, true);
  }
}

function card(hit) {
  const node = $("hit").content.cloneNode(true).firstElementChild;
  const part = (name) => node.querySelector(name);
  part("img").addEventListener("error", async () => {
    const why = await whyNot(`/preview/${hit.item}`, `There is no picture of ${hit.file}.`);
    part(".screen").replaceChildren(note(why));
  });
  part("img").src = `/preview/${hit.item}`;
  part(".play").setAttribute("aria-label", `Play ${hit.file} from ${hit.clock}`);
  part(".play").addEventListener("click", () => play(part(".screen"), hit));
  part(".name").textContent = hit.file;
  part(".clock").textContent = hit.clock;
  part(".score").textContent = hit.score === null ? "" : `score ${hit.score.toFixed(2)}`;
  if (hit.captions) part(".describe").textContent = "Nearest training captions";
  if (hit.captions?.length) {
    part(".own").hidden = false;
    const [first, ...others] = hit.captions;
    const more = others.length ? ` and ${others.length} more` : "";
    part(".own summary").textContent = `Test captions: “${first}”${more}`;
    part(".own ul").append(...others.map(
      (text) => Object.assign(document.createElement("li"), { textContent: text }),
    ));
  }
  part(".similar").addEventListener("click", () => {
    show(similar(hit), PAGE, 0);
    window.scrollTo({ top: 0 });
  });
  part(".describe").addEventListener("click", () => describe(node, hit));
  return node;
}

// One clip at a time: browsers open few connections to a server, and every player holds one.
function stop() {
  if (!playing) return;
  const { screen, picture, player } = playing;
  playing = null;
  player.pause();
  player.removeAttribute("src");
  player.load();
  if (screen.contains(player)) screen.replaceChildren(picture);
}

async function play(screen, hit) {
  stop();
  const player = document.createElement("video");
  player.controls = true;
  player.muted = true; // browsers start only silent videos by themselves
  player.poster = `/preview/${hit.item}`;
  player.playsInline = true;
  let source = "";
  player.addEventListener("error", async () => {
    if (playing?.player !== player) return;
    const why = await whyNot(`/${source}/${hit.item}`, "");
    if (playing?.player !== player) return;
    if (!why && source === "video") return begin("clip"); // what this browser does not play
    screen.replaceChildren(note(why || `This browser cannot play ${hit.file}.`));
  });
  playing = { screen, player, picture: screen.firstElementChild };
  screen.replaceChildren(player);
  player.focus();
  // A file's clock need not start at 0; a file without an answer is told of by the error event.
  const { seconds, plays } = await ask("/api/begin", { item: hit.item })
    .catch(() => ({ seconds: 0, plays: true }));
  if (playing?.player !== player) return;
  const from = seconds + hit.start;
  function begin(kind) {
    source = kind;
    player.src = kind === "clip" ? `/clip/${hit.item}`
      : `/video/${hit.item}#t=${from},${seconds + hit.end}`;
    player.play().catch(() => {}); // the error event says what there is to say
  }
  // A start beyond the length that a file claims is not taken, until it plays and is seen to go on.
  player.addEventListener("playing", () => {
    if (source === "video" && Math.abs(player.currentTime - from) > 1) player.currentTime = from;
  }, { once: true });
  begin(plays ? "video" : "clip");
}

function note(text) {
  return Object.assign(document.createElement("p"), { className: "failed", textContent: text });
}

// Pictures and players do not tell what the server said: one byte of the same thing does.
function whyNot(path, otherwise) {
  return fetched(path, { headers: { Range: "bytes=0-0" } }).then(
    () => otherwise,
    (error) => error.message,
  );
}

async function describe(node, hit) {
  const list = node.querySelector(".captions");
  const button = node.querySelector(".describe");
  const open = list.hidden;
  button.setAttribute("aria-expanded", open);
  list.hidden = !open;
  if (!open) return;
  try {
    const { hits } = await ask("/api/captions", { item: hit.item, k: 5, scores: chosenScores() });
    list.replaceChildren(...hits.map((found) => {
      const line = document.createElement("li");
      const score = document.createElement("span");
      score.textContent = ` ${found.score.toFixed(2)}`;
      line.append(found.caption, score);
      return line;
    }));
  } catch (error) {
    list.replaceChildren(Object.assign(document.createElement("li"), { textContent: error.message }));
  }
}

// A picture or a clip to find the like of, chosen or dropped.
function find(file) {
  if (!file || !largest) return;
  if (file.size > largest) {
    return say(`${file.name} is larger than ${largest >> 20} MB; cut out the part that matters.`, true);
  }
  $("query").value = "";
  history.replaceState(null, "", location.pathname);
  show(like(file), PAGE, 0);
}

function takeExamples() {
  $("give").hidden = false;
  $("give").title = `or drop it on the page; up to ${largest >> 20} MB`;
  $("example").addEventListener("change", () => {
    find($("example").files[0]);
    $("example").value = ""; // the same file may be chosen again
  });
  const dragged = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!dragged(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    if (!dragged(event)) return;
    event.preventDefault();
    document.body.classList.remove("dropping");
    find(event.dataTransfer.files[0]);
  });
}

async function start() {
  $("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  $("scores").addEventListener("change", () => show(current, PAGE, 0));
  const given = new URLSearchParams(location.search);
  $("query").value = given.get("q") || "";
  try {
    const gallery = await ask("/api/gallery", {});
    const wanted = given.get("scores") || gallery.preferred;
    document.querySelector(`input[value="${wanted === "plain" ? "plain" : "normalised"}"]`).checked = true;
    $("about").textContent =
      gallery.run ? `${plural(gallery.windows, "test clip")} of the run “${gallery.run}”`
        : `${plural(gallery.windows, "clip")} in ${plural(gallery.files, "video")} of “${gallery.folder}”`;
    $("about").textContent += gallery.normalised
      ? `; normalised by ${gallery.bank}`
      : "; this index has no bank, so both scores are the same";
    if (gallery.keeps_queries) {
      $("about").textContent += "; queries are kept on the machine that serves this page";
    }
    $("remark").textContent = gallery.remark;
    $("remark").hidden = !gallery.remark;
    largest = gallery.example_bytes;
    if (largest) takeExamples();
  } catch (error) {
    say(error.message, true);
  }
  search();
}

start();
