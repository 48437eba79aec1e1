// The pages are whole without this; with it they follow what changes.
"use strict";
(() => {
  const body = document.body;
  const say = document.getElementById("live-state");
  const gone = document.getElementById("gone");
  const FAST_MS = 4000, SLOW_MS = 15000, POLL_MS = 10000, ANSWER_MS = 8000, SILENT_MS = 40000;  // the stream beats every 15 s
  let heardMs = Date.now(), startedMs = 0, goneMs = 0, isUnsent = false;
  let waitMs = FAST_MS, skewMs = 0, source = null, poller = 0, told = "", dirty = false, fastAt = 0, slowAt = Date.now(), busy = false;

  const tell = (text) => { if (say && say.textContent !== text) say.textContent = text; };
  const limit = () => ({ cache: "no-store", signal: AbortSignal.timeout?.(ANSWER_MS) });

  // To load the answer to a form again would send the form again: from there it goes back to where it came from.
  function logIn() {
    const onward = document.querySelector("#confirm [name=back]")?.value ?? location.pathname + location.search;
    location.replace(`/login?next=${encodeURIComponent(onward)}`);
  }

  function warn() {
    const since = goneMs && new Date(goneMs).toLocaleString("sv");  // written as the gateway writes times
    const text = (goneMs ? `The gateway has not answered since ${since}: what is shown is of then and may be out of date. ` : "") +
      (isUnsent ? "Nothing was sent and nothing was changed: try again when the gateway answers." : "");
    if (gone.textContent !== text) gone.textContent = text;
  }

  function heard() { heardMs = Date.now(); goneMs = 0; warn(); }

  function lost() { goneMs ||= body.dataset.stream ? heardMs : Date.now(); warn(); }

  function age(seconds) {
    for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]])
      if (seconds >= length) return `${(seconds / length).toFixed(1)} ${unit}`;
    return `${Math.max(0, Math.round(seconds))} s`;
  }

  function put(element, text) {
    if (element.textContent === text) return;
    element.textContent = text;
    element.classList.remove("changed");
    void element.offsetWidth;
    element.classList.add("changed");
  }

  function show(state) {
    if (state.trouble) return tell(state.trouble);
    skewMs = Date.now() - state.now_ms;
    for (const element of document.querySelectorAll("[data-v]")) {
      const value = element.dataset.v.split(".").reduce((found, name) => found?.[name], state);
      if (value !== undefined && value !== null) put(element, String(value));
    }
    const { now_ms, ...rest } = state;
    const text = JSON.stringify(rest);
    if (told && text !== told) dirty = true;
    told = text;
    refresh();
  }

  // A part somebody is working in stays as it is.
  const inUse = (part) =>
    (part.contains(document.activeElement) && /^(INPUT|SELECT|TEXTAREA|BUTTON|SUMMARY|A)$/.test(document.activeElement.tagName)) ||
    part.querySelector("input:checked, form[data-sent]") !== null;

  async function refresh() {
    const now = Date.now();
    const fast = dirty && now - fastAt >= waitMs, slow = now - slowAt >= SLOW_MS;
    const wanted = [...document.querySelectorAll("[data-live]")].filter((part) =>
      (part.dataset.live === "slow" ? slow : fast) && !inUse(part));
    if (busy || document.hidden || !wanted.length) return;
    busy = true;
    if (fast) { fastAt = now; dirty = false; }
    if (slow) slowAt = now;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.redirected && new URL(answer.url).pathname === "/login") return logIn();
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of wanted) {
        const next = fresh.getElementById(part.id);
        if (!next || inUse(part) || next.innerHTML === part.innerHTML) continue;
        const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
        part.replaceChildren(...[...next.childNodes].map((node) => document.importNode(node, true)));
        for (const id of open) document.getElementById(id)?.setAttribute("open", "");
      }
      selection();
    } catch { /* the next change tries again */ } finally {
      busy = false;
      waitMs = Math.max(FAST_MS, 10 * (Date.now() - now));  // a slow link is for whoever works on it
    }
  }

  async function poll() {
    try {
      const answer = await fetch(body.dataset.poll, limit());
      if (answer.status === 401) return logIn();  // the session is over
      if (!answer.ok) throw new Error(answer.statusText);
      const state = await answer.json();
      heard();
      if (!poller) return;
      show(state);
      tell("live, asked every 10 s");
    } catch {
      if (document.hidden) return;
      tell("not live: the gateway does not answer");
      lost();
    }
  }

  function stop() {
    source?.close();
    source = null;
    clearInterval(poller);
    poller = 0;
  }

  function start() {
    if (!body.dataset.stream || document.hidden || source || poller) return;
    startedMs = Date.now();
    if (!window.EventSource) return pollFromNow();
    source = new EventSource(body.dataset.stream);
    source.onopen = () => { heard(); tell("live"); };
    source.onmessage = (event) => { heard(); tell("live"); show(JSON.parse(event.data)); };
    source.addEventListener("beat", heard);
    source.onerror = () => {
      tell("not live: connecting again");
      if (source?.readyState !== EventSource.CLOSED) return poll();  // a stream that was cut is no gateway that is gone
      stop();
      pollFromNow();
    };
  }

  function pollFromNow() { poller = setInterval(poll, POLL_MS); poll(); }

  // A machine that lost its power ends no connection.
  function watch() {
    if (!source || Date.now() - Math.max(heardMs, startedMs) < SILENT_MS) return;
    stop();
    tell("not live: connecting again");
    lost();
    start();
  }

  function selection() {
    const all = document.getElementById("select-page");
    if (!all || !all.hidden) return;
    all.hidden = false;
    const boxes = () => document.querySelectorAll("#rows input[name=id]");
    all.addEventListener("change", () => boxes().forEach((box) => { box.checked = all.checked; }));
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", start);
  async function answers() {
    try { return (await fetch("/livez", limit())).ok; } catch { return false; }
  }

  // A form is sent once somebody is there to take it: the browser's own error page would take this one's place.
  document.addEventListener("submit", async (event) => {
    const form = event.target, button = event.submitter;
    if (form.getAttribute("method") !== "post") return;
    if (form.dataset.sent === "now") { form.dataset.sent = "1"; return; }
    event.preventDefault();
    if (form.dataset.sent) return;
    form.dataset.sent = "1";
    isUnsent = !await answers();
    if (!isUnsent) {
      form.dataset.sent = "now";
      return form.requestSubmit(button);
    }
    delete form.dataset.sent;
    lost();
  });
  addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));
  setInterval(() => {
    for (const element of document.querySelectorAll("[data-since]"))
      element.textContent = age((Date.now() - skewMs - Number(element.dataset.since)) / 1000);
    watch();
    if (source || poller) refresh();
  }, 1000);
  selection();
  start();
})();
