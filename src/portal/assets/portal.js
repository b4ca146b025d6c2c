// Everything here is a convenience: each page works without it.
"use strict";

const LIVE_MS = 2000;

// Newest records and nodes: fetches the fragment that the server would have put there anyway.
function live(box) {
  const name = box.dataset.liveName;
  const bar = document.createElement("p");
  const dot = document.createElement("i");
  const words = document.createElement("span");
  const button = document.createElement("button");
  bar.className = "live";
  button.type = "button";
  button.className = "quiet";
  dot.setAttribute("aria-hidden", "true");
  bar.append(dot, words, button);
  box.before(bar);
  let paused = false, ended = false, busy = false;
  function show(text) {
    bar.classList.toggle("off", paused || ended || text !== undefined);
    button.textContent = (paused ? "Resume" : "Pause") + " live " + name;
    words.textContent = text ?? (paused ? "Paused" : "Live");
  }
  // What somebody reads, selects or stands on with the keyboard is not swapped away under them.
  function inUse() {
    const selection = document.getSelection();
    const selected = selection && !selection.isCollapsed && box.contains(selection.anchorNode);
    const focused = box.contains(document.activeElement) && document.activeElement.matches("a");
    return selected || focused;
  }
  async function poll() {
    if (paused || ended || busy || document.hidden || inUse()) return;
    busy = true;
    try {
      const answer = await fetch(box.dataset.live, { signal: AbortSignal.timeout(10000), redirect: "error" });
      if (answer.status === 401) {
        ended = true;
        button.remove();
        show("Your session has ended. ");
        const link = document.createElement("a");
        link.href = "/login?next=" + encodeURIComponent(location.pathname + location.search);
        link.textContent = "Log in again";
        words.append(link);
      } else if (answer.ok) {
        const text = await answer.text();
        if (!paused && !inUse()) swap(box, text);
        show();
      } else {
        show("The node answered " + answer.status + "; trying again");
      }
    } catch {
      show("The node does not answer; trying again");
    }
    busy = false;
  }
  button.addEventListener("click", () => { paused = !paused; show(); poll(); });
  show();
  setInterval(poll, LIVE_MS);
}

function swap(box, html) {
  const left = box.querySelector(".wide")?.scrollLeft ?? 0;
  const stood = document.activeElement === box.querySelector(".wide");
  box.innerHTML = html;
  const wide = box.querySelector(".wide");
  if (wide) { wide.scrollLeft = left; if (stood) wide.focus({ preventScroll: true }); }
  localTimes(box);
  // What only makes sense while it is under way goes when it has ended.
  if (box.querySelector("[data-ended]")) {
    for (const form of document.querySelectorAll("[data-until-ended]")) form.hidden = true;
  }
}

// The pages say UTC; the reader's own time is a hover away.
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    if (!isNaN(date)) time.title = date.toLocaleString() + " your time" + (time.title ? " · " + time.title : "");
  }
}

// Line numbers beside the policy document, those complained of marked; a complaint's link goes to its line in the text.
function editor(pad) {
  const text = pad.querySelector("textarea");
  const gutter = document.createElement("pre");
  const marks = new Set(pad.dataset.marks.split(" ").filter(Boolean).map(Number));
  gutter.className = "gutter code";
  gutter.setAttribute("aria-hidden", "true");
  pad.prepend(gutter);
  let shown = 0;
  function number() {
    let lines = 1;
    for (let at = text.value.indexOf("\n"); at >= 0; at = text.value.indexOf("\n", at + 1)) lines++;
    if (lines === shown) return;
    shown = lines;
    const parts = [];
    let plain = "";
    for (let line = 1; line <= lines; line++) {
      if (!marks.has(line)) { plain += line + "\n"; continue; }
      const mark = document.createElement("b");
      mark.textContent = line;
      parts.push(plain, mark);
      plain = "";
    }
    gutter.replaceChildren(...parts, plain + "\n\n");
    gutter.scrollTop = text.scrollTop;
  }
  function goTo(line) {
    let start = 0;
    for (let n = 1; n < line; n++) {
      const end = text.value.indexOf("\n", start);
      if (end < 0) break;
      start = end + 1;
    }
    const end = text.value.indexOf("\n", start);
    text.focus();
    text.setSelectionRange(start, end < 0 ? text.value.length : end);
    text.scrollTop = Math.max(0, (line - 5) * parseFloat(getComputedStyle(text).lineHeight));
    pad.scrollIntoView({ block: "nearest" });
  }
  text.addEventListener("input", number);
  text.addEventListener("scroll", () => { gutter.scrollTop = text.scrollTop; });
  for (const link of document.querySelectorAll("a[data-line]")) {
    link.addEventListener("click", (event) => { event.preventDefault(); goTo(Number(link.dataset.line)); });
  }
  for (const excerpt of document.querySelectorAll(".nojs")) excerpt.hidden = true;
  number();
  // Leaving with a changed text asks first; pressing a button of the form does not.
  const before = text.defaultValue;
  let sending = false;
  text.form.addEventListener("submit", () => { sending = true; });
  addEventListener("beforeunload", (event) => { if (!sending && text.value !== before) event.preventDefault(); });
}

// After Restart: says how far it is, then goes to the login. Sessions are a process's own: 401 is the new one's answer.
function restart(box) {
  const [step, words, hint, login] = ["step", "words", "hint", "login"].map((name) => box.querySelector("[data-" + name + "]"));
  const started = Date.now();
  let silentSince = 0;
  const seconds = (since) => Math.round((Date.now() - since) / 1000);
  // The step is a live region: it is spoken once, not with each second.
  function say(text) { if (step.textContent !== text) step.textContent = text; }
  async function look() {
    try {
      const answer = await fetch(box.dataset.restart, { signal: AbortSignal.timeout(3000), redirect: "error" });
      if (answer.status === 401) return back();
      if (answer.status === 200) {
        const state = await answer.json();
        silentSince = 0;
        say("Step 1 of 2: what is under way ends.");
        words.textContent = state.words;
      }
    } catch {
      silent();
    }
    setTimeout(look, 1000);
  }
  function silent() {
    silentSince ||= Date.now();
    say("Step 2 of 2: the node starts again.");
    const gone = seconds(silentSince);
    words.textContent = "It has not answered for " + gone + " s.";
    if (gone > 30) {
      hint.textContent = "That is longer than a start takes. On the node, see: systemctl status tidegate, journalctl -u tidegate. This page goes on asking.";
    }
  }
  function back() {
    say("The node is back, after " + seconds(started) + " s.");
    words.textContent = "You are taken to the login.";
    hint.textContent = "";
    login.focus();
    setTimeout(() => location.assign(login.href), 1500);
  }
  look();
}

localTimes(document);
document.querySelectorAll("[data-live]").forEach(live);
document.querySelectorAll("[data-editor]").forEach(editor);
document.querySelectorAll("[data-restart]").forEach(restart);
document.getElementById("result")?.focus();
