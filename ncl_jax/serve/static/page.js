"use strict";
// Whatever comes from file names or captions goes in as text, never as HTML.

const $ = (id) => document.getElementById(id);
let latest = 0; // answers to older searches are dropped

async function fetched(path, options) {
  const answer = await fetch(path, options).catch(() => null);
  if (!answer) throw new Error("The server does not answer; is it still running?");
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({ error: "The server failed; see its output." }));
  throw new Error(body.error);
}

async function ask(path, parameters) {
  return (await fetched(`${path}?${new URLSearchParams(parameters)}`)).json();
}

function say(text, wrong = false) {
  $("said").textContent = text || "\u00a0";
  $("said").classList.toggle("wrong", wrong);
}

const chosenScores = () => document.querySelector("input[name=scores]:checked").value;
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

async function search() {
  const query = $("query").value.trim();
  if (!query) return;
  const mine = ++latest;
  say("Searching…");
  try {
    const scores = chosenScores();
    const { hits } = await ask("/api/search", { q: query, scores });
    if (mine !== latest) return;
    $("hits").replaceChildren(...hits.map(card));
    say(`${plural(hits.length, "clip")}, best first, by ${scores} scores in logits.`);
    history.replaceState(null, "", `?${new URLSearchParams({ q: query, scores })}`);
  } catch (error) {
    if (mine === latest) say(error.message, true);
  }
}

function card(hit) {
  const node = $("hit").content.cloneNode(true).firstElementChild;
  const part = (name) => node.querySelector(name);
  part("img").src = `/preview/${hit.item}`;
  part(".play").setAttribute("aria-label", `Play ${hit.file} from ${hit.clock}`);
  part(".play").addEventListener("click", () => play(part(".screen"), hit));
  part(".name").textContent = hit.file;
  part(".clock").textContent = hit.clock;
  part(".score").textContent = `score ${hit.score.toFixed(2)}`;
  part(".describe").addEventListener("click", () => describe(node, hit));
  return node;
}

function play(screen, hit) {
  const player = document.createElement("video");
  player.controls = true;
  player.muted = true; // browsers start only silent videos by themselves
  player.playsInline = true;
  player.src = `/video/${hit.item}#t=${hit.start},${hit.end}`;
  player.addEventListener("error", async () => {
    const note = document.createElement("p");
    note.className = "failed";
    note.textContent = await whyNot(hit);
    screen.replaceChildren(note);
  });
  screen.replaceChildren(player);
  player.play().catch(() => {}); // the error event says what there is to say
  player.focus();
}

// A player does not tell what the server said: one byte of the same file does.
function whyNot(hit) {
  return fetched(`/video/${hit.item}`, { headers: { Range: "bytes=0-0" } }).then(
    () => `This browser cannot play ${hit.file}.`,
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

async function start() {
  $("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  $("scores").addEventListener("change", search);
  const given = new URLSearchParams(location.search);
  $("query").value = given.get("q") || "";
  const scores = document.querySelector(`input[value="${given.get("scores") === "plain" ? "plain" : "normalised"}"]`);
  scores.checked = true;
  try {
    const gallery = await ask("/api/gallery", {});
    $("about").textContent =
      `${plural(gallery.windows, "clip")} in ${plural(gallery.files, "video")} of “${gallery.folder}”`;
    if (!gallery.normalised) {
      $("about").textContent += "; this index has no bank, so both scores are the same";
    }
  } catch (error) {
    say(error.message, true);
  }
  search();
}

start();
