// Keeps pages up to date and copies commands. Without this script they work by reloading.
"use strict";

(() => {
  document.documentElement.classList.add("scripted");

  // The clipboard's own interface is for pages over TLS.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    getSelection().selectAllChildren(button.parentElement.querySelector("code"));
    button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });

  // The server knows UTC alone. Swedish dates read like the server's.
  const zone = document.getElementById("zone");
  if (zone) {
    for (const time of document.querySelectorAll("time")) {
      time.title = time.textContent + " UTC";
      time.textContent = new Date(time.dateTime).toLocaleString("sv-SE");
    }
    zone.textContent = "Times are your own; the days to choose from are in UTC.";
  }

  // A reload or a bookmark should not show an old outcome again.
  const address = new URL(location.href);
  if (address.searchParams.has("outcome")) {
    address.searchParams.delete("outcome");
    history.replaceState(null, "", address);
  }

  // A second click would send a form again, and lose what the first one brings.
  const sent = new WeakMap();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    const now = performance.now();
    if (now - (sent.get(form) ?? -Infinity) < 3000) event.preventDefault();
    else sent.set(form, now);
  });

  // A part of a page that is fetched again until it says that nothing will change any more.
  setInterval(async () => {
    const part = document.querySelector("[data-refresh]");
    if (!part || document.hidden) return;
    const page = await fetch(location.pathname).then((answer) => answer.text(), () => "");
    const fresh = new DOMParser().parseFromString(page, "text/html").getElementById(part.id);
    // What somebody is copying is left alone.
    const buttons = [...part.querySelectorAll("button.copy")];
    if (buttons.some((button) => button.textContent !== "Copy")) return;
    if (fresh && !part.isEqualNode(fresh)) part.replaceWith(fresh);
  }, 2000);

  const live = document.getElementById("live");
  const connection = document.getElementById("connection");
  const news = document.getElementById("news");
  if (!live || !live.dataset.events) return;

  // The server sends something at least every 15 s.
  const SILENCE = 35000;
  const RETRY = 5000;
  let source = null;
  let watchdog = 0;
  let retry = 0;
  let build = null;

  function say(sentence) {
    connection.textContent = sentence;
    connection.hidden = !sentence;
    live.classList.toggle("stale", Boolean(sentence));
  }

  // Replace what changed and leave everything else alone, with its focus and selection.
  function sync(old, fresh) {
    // What was typed stays: a form is as it was when its page was made.
    if (old.isEqualNode(fresh) || fresh.id === "vm-form") return;
    const keyed = (node) => node.children.length > 0 && [...node.children].every((c) => c.id);
    const other = old.tagName !== fresh.tagName;
    if (other || !keyed(fresh) || (old.children.length > 0 && !keyed(old))) {
      const focused = old.contains(document.activeElement) && document.activeElement.id;
      old.replaceWith(fresh);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      return;
    }
    if (old.hidden !== fresh.hidden) old.hidden = fresh.hidden;
    // First what goes: what follows it need not be moved, which would take its focus.
    const wanted = new Set([...fresh.children].map((child) => child.id));
    for (const child of [...old.children]) if (!wanted.has(child.id)) child.remove();
    const known = new Map([...old.children].map((child) => [child.id, child]));
    let place = old.firstElementChild;
    for (const child of [...fresh.children]) {
      const match = known.get(child.id);
      if (!match) {
        old.insertBefore(child, place);
        continue;
      }
      if (match === place) place = place.nextElementSibling;
      else old.insertBefore(match, place);
      sync(match, child);
    }
  }

  function devices(root) {
    return new Map([...root.querySelectorAll("[data-news]")].map((d) => [d.id, d.dataset.news]));
  }

  // For those who do not see the page: what changed, once, in a sentence.
  function announce(before, after) {
    const said = [];
    for (const [id, text] of after) if (before.get(id) !== text) said.push(text);
    for (const [id, text] of before) {
      if (!after.has(id)) said.push(text.slice(0, text.lastIndexOf(":")) + ": unplugged");
    }
    if (said.length > 0) news.textContent = said.join(". ");
  }

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("live");
    if (!fresh) return;
    clock = Number(fresh.dataset.now) - performance.now();
    announce(devices(live), devices(fresh));
    fresh.className = live.className;
    live.dataset.events = fresh.dataset.events;
    for (const open of live.querySelectorAll("details[open]")) {
      within(fresh, open.id)?.setAttribute("open", "");
    }
    dress(live);
    dress(fresh);
    steadily(() => sync(live, fresh));
  }

  // A card that would shrink keeps its height for as long as it is there, so that what is below it does
  // not move under a finger.
  const heights = new Map();

  function steadily(change) {
    const cards = () => live.querySelectorAll("li.card:not(:has(details[open]))");
    const height = (card) => card.getBoundingClientRect().height;
    const before = new Map([...cards()].map((card) => [card.id, height(card)]));
    change();
    for (const id of heights.keys()) if (!within(live, id)) heights.delete(id);
    for (const card of cards()) {
      if (height(card) < before.get(card.id)) heights.set(card.id, before.get(card.id));
    }
    dress(live);
  }

  // Phones also call it a resize when their address bar comes and goes.
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    heights.clear();
    for (const card of live.querySelectorAll("li.card")) card.removeAttribute("style");
  });

  // What the server does not know of this page: the time that passed, and what came of a click. The
  // fresh picture gets it as well, so that what did not change is still the same.
  const said = new Map();
  let clock = Number(live.dataset.now) - performance.now();

  function within(root, id) {
    return id ? root.querySelector(`[id="${CSS.escape(id)}"]`) : null;
  }

  function ago(seconds) {
    const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
    if (minutes < 1) return "just now";
    if (hours < 1) return `for ${minutes} min`;
    if (days < 1) return `for ${hours} h ${minutes % 60} min`;
    return `for ${days} d ${hours % 24} h`;
  }

  function dress(root) {
    const now = clock + performance.now();
    const write = (element, text) => {
      if (element.textContent !== text) element.textContent = text;
    };
    for (const element of root.querySelectorAll("[data-at]")) {
      write(element, ago(Math.max(0, now - element.dataset.at) / 1000));
    }
    for (const element of root.querySelectorAll("[data-due]")) {
      const seconds = Math.ceil(Math.max(0, element.dataset.due - now) / 1000);
      write(element, seconds ? `Tried again in ${seconds} s.` : "Tried again now.");
    }
    for (const [id, height] of heights) {
      const card = within(root, id);
      if (card) card.style.minHeight = `${height}px`;
    }
    for (const [id, { text, kind }] of said) {
      const place = within(root, id);
      if (!place) continue;
      const busy = kind === "busy";
      for (const button of place.querySelectorAll("button")) {
        busy ? button.setAttribute("aria-disabled", "true") : button.removeAttribute("aria-disabled");
      }
      const line = document.createElement("p");
      line.id = `outcome-${id}`;
      line.setAttribute("role", "status");
      line.className = `outcome ${kind}`;
      line.textContent = text;
      // What is said already is not said again.
      const before = place.querySelector(".outcome[role=status]");
      if (before?.isEqualNode(line)) continue;
      before?.remove();
      const first = place.firstElementChild;
      first ? first.after(line) : place.append(line);
    }
  }

  function tell(place, text, kind) {
    said.set(place, { text, kind });
    dress(live);
    if (kind === "busy") return;
    news.textContent = text;
    setTimeout(() => {
      if (said.get(place)?.text !== text) return;
      said.delete(place);
      steadily(() => within(live, place)?.querySelector(".outcome[role=status]")?.remove());
    }, 20000);
  }

  // Said by the server, as without this script. What has no role is part of the page and stays.
  for (const line of live.querySelectorAll(".outcome[role=status]")) {
    tell(line.closest("[id]").id, line.textContent, line.classList.contains("good") ? "good" : "bad");
  }

  // A button of the live part: ask in the background, and say at the button what came of it.
  const form = document.getElementById("act");
  form?.addEventListener("submit", async (event) => {
    const button = event.submitter;
    const place = (button?.closest("#kept") ?? button?.closest("li[id], section[id]"))?.id;
    if (!place || !live.contains(button)) return;
    event.preventDefault();
    if (said.get(place)?.kind === "busy") return;
    const body = new URLSearchParams(new FormData(form));
    if (button.name) body.append(button.name, button.value);
    button.closest("details.ask")?.removeAttribute("open");
    tell(place, "One moment…", "busy");
    const answer = await fetch(button.formAction, { method: "POST", body }).catch(() => null);
    const page = new DOMParser().parseFromString((await answer?.text()) ?? "", "text/html");
    const line = page.querySelector(".outcome");
    if (line) tell(place, line.textContent, line.classList.contains("good") ? "good" : "bad");
    else if (answer?.redirected) location.reload();
    else if (answer) tell(place, "The Pi did not take it. Reload this page and try again.", "bad");
    else tell(place, "The Pi does not answer. Nothing may have been done.", "bad");
  });

  function close() {
    clearTimeout(watchdog);
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  }

  function heard() {
    say("");
    clearTimeout(watchdog);
    watchdog = setTimeout(() => lost("The Pi has fallen silent."), SILENCE);
  }

  function lost(why) {
    close();
    say(why + " Trying again. What is shown may be out of date.");
    retry = setTimeout(open, RETRY);
  }

  function open() {
    close();
    source = new EventSource(live.dataset.events);
    source.addEventListener("build", (event) => {
      heard();
      // Another version of the appliance: its page may not fit this script.
      if (build !== null && build !== event.data) location.reload();
      build = event.data;
    });
    source.addEventListener("picture", (event) => {
      heard();
      show(event.data);
    });
    source.addEventListener("alive", heard);
    source.onerror = async () => {
      close();
      // Whoever is signed out is sent to another page.
      const ask = { method: "HEAD", redirect: "manual" };
      const answer = await fetch(location.pathname, ask).catch(() => null);
      if (answer?.type === "opaqueredirect") return location.reload();
      lost(answer ? "Live updates have stopped." : "The Pi does not answer.");
    };
  }

  setInterval(() => dress(live), 1000);

  // A page that nobody sees needs no connection; browsers allow six to one host.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  if (!document.hidden) open();
})();
